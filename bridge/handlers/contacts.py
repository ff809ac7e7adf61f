"""Contacts: requests, answers, remarks and blocks.

A request and its answer are `system` entries in the conversation of the two, so both inboxes have
them. What concerns one side only (remark, block) is told to that user's own devices.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access, Pair
from bridge.core.notices import Notices, notice
from bridge.core.operations import After, Caller, Done, Id, Name, Note, Operations, PageSize, Parameters
from bridge.core.paging import page_of
from bridge.core.retrying import retrying
from broker.domain.directory import Contact
from broker.domain.errors import RefusedError
from broker.domain.permissions import UserOperation
from broker.domain.topics import inbox_topic
from broker.ports import BrokerPort, Directory, Notice, all_contacts

States = Literal["contact", "sent", "received", "blocked", "all"]


class ListParameters(Parameters):
    """Which contacts, and a page of them."""

    state: States = "contact"
    """`contact`; `sent` and `received` requests; who is `blocked`; or `all` of these and who has a remark."""
    after: After = ""
    limit: PageSize = 100


class ContactView(msgspec.Struct):
    """Another user, as the caller stands to them."""

    user_id: str
    state: str
    """`contact`; `sent` or `received` for a request; `none`."""
    blocked: bool
    """By the caller. Who has blocked the caller is not told."""
    remark: str
    """What the caller calls them."""
    note: str
    """What the request said."""
    name: str
    avatar: str
    """A URL."""
    updated_at: int
    """Unix ms."""


class ListResult(msgspec.Struct):
    """Contacts by user id; `next` is empty on the last page."""

    contacts: list[ContactView]
    next: str


class PeerParameters(Parameters):
    """The other user."""

    user_id: Id


class RequestParameters(Parameters):
    """The other user, and words for them."""

    user_id: Id
    note: Note = ""


class RemarkParameters(Parameters):
    """The other user, and what to call them."""

    user_id: Id
    remark: Name
    """Empty for nothing."""


class Contacts:
    """The handlers."""

    def __init__(self, directory: Directory, access: Access, broker: BrokerPort, notices: Notices) -> None:
        self._directory = directory
        self._access = access
        self._broker = broker
        self._notices = notices

    def register(self, operations: Operations) -> None:
        """Offer the methods."""
        operations.add("contacts.list", self.list_contacts)
        for name in ("request", "accept", "reject", "remove", "remark", "block", "unblock"):
            operations.add(f"contacts.{name}", getattr(self, name))

    async def list_contacts(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """The caller's contacts, requests, or who is blocked."""
        found: list[Contact] = []
        async for contact in all_contacts(self._directory, caller.user, parameters.after):
            if _is(contact, parameters.state):
                found.append(contact)
                if len(found) > parameters.limit:
                    break
        page, following = page_of(found, parameters.limit, lambda contact: contact.peer_id)
        profiles = await self._directory.profiles([contact.peer_id for contact in page])
        views = []
        for contact in page:
            profile = profiles.get(contact.peer_id)
            views.append(
                ContactView(
                    user_id=contact.peer_id,
                    state=contact.state,
                    blocked=contact.blocked,
                    remark=contact.remark,
                    note=contact.note,
                    name=profile.name if profile else "",
                    avatar=profile.avatar if profile else "",
                    updated_at=contact.updated_at,
                )
            )
        return ListResult(views, following)

    @retrying
    async def request(self, caller: Caller, parameters: RequestParameters) -> Done:
        """Ask a user to be a contact. If they have asked already, this accepts."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.REQUEST)
        if pair.mine.state == "received":
            await self._become_contacts(pair)
            return Done()
        if pair.mine.state == "sent" and pair.mine.note == parameters.note:
            return Done()
        mine = self._changed(pair.mine, state="sent", note=parameters.note)
        theirs = self._changed(pair.theirs, state="received", note=parameters.note)
        asks = self._notice(caller.user, parameters.user_id, "contact_requested", note=parameters.note)
        # Once asked, the words may change; they are not told again and again.
        await self._write([mine, theirs], [] if pair.mine.state == "sent" else [asks])
        return Done()

    @retrying
    async def accept(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Accept a user's request."""
        await self._become_contacts(await self._requested(caller, parameters.user_id))
        return Done()

    @retrying
    async def reject(self, caller: Caller, parameters: RequestParameters) -> Done:
        """Reject a user's request."""
        pair = await self._requested(caller, parameters.user_id)
        mine = self._changed(pair.mine, state="none", note="")
        theirs = self._changed(pair.theirs, state="none", note="")
        answer = self._notice(caller.user, parameters.user_id, "contact_rejected", note=parameters.note)
        await self._write([mine, theirs], [answer])
        return Done()

    @retrying
    async def remove(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Be contacts no more, on both sides; or take a request of the caller's back."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.REMOVE)
        if pair.mine.state not in ("contact", "sent"):
            raise RefusedError("not_found", f"{parameters.user_id} is not your contact")
        mine = self._changed(pair.mine, state="none", note="")
        theirs = self._changed(pair.theirs, state="none", note="")
        await self._write([mine, theirs], [])
        return Done()

    @retrying
    async def remark(self, caller: Caller, parameters: RemarkParameters) -> Done:
        """Give a user a name of one's own, which only the caller sees."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.REMARK)
        await self._write([self._changed(pair.mine, remark=parameters.remark)], [])
        return Done()

    @retrying
    async def block(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Stop messages, typing, presence and receipts between the two, both ways."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.BLOCK)
        if not pair.mine.blocked:
            await self._write([self._changed(pair.mine, blocked=True)], [])
        return Done()

    @retrying
    async def unblock(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Take a block back."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.BLOCK)
        if pair.mine.blocked:
            await self._write([self._changed(pair.mine, blocked=False)], [])
        return Done()

    async def _requested(self, caller: Caller, peer: str) -> Pair:
        pair = await self._access.between(caller, peer, UserOperation.ANSWER)
        if pair.mine.state != "received":
            raise RefusedError("not_found", f"there is no request of {peer}")
        return pair

    async def _become_contacts(self, pair: Pair) -> None:
        mine = self._changed(pair.mine, state="contact", note="")
        theirs = self._changed(pair.theirs, state="contact", note="")
        answer = self._notice(mine.user_id, mine.peer_id, "contact_accepted")
        await self._write([mine, theirs], [answer])

    def _changed(self, contact: Contact, **values: object) -> Contact:
        now, version = self._access.now_ms(), contact.version + 1
        return replace(contact, updated_at=now, version=version, **values)

    @staticmethod
    def _notice(user: str, peer: str, event: str, note: str = "") -> Notice:
        return notice(user, inbox_topic(peer), event, user_id=peer, note=note or None)

    async def _write(self, contacts: list[Contact], notices: list[Notice]) -> None:
        await self._directory.write_contacts(contacts, notices)
        await self._notices.publish(notices)
        for contact in contacts:
            event = {
                "event": "contact",
                "user_id": contact.peer_id,
                "state": contact.state,
                "blocked": contact.blocked,
                "remark": contact.remark,
            }
            await self._broker.emit([contact.user_id], event)


def _is(contact: Contact, state: States) -> bool:
    if state == "all":
        return contact.state != "none" or contact.blocked or bool(contact.remark)
    if state == "blocked":
        return contact.blocked
    return contact.state == state

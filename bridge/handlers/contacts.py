"""Contacts: requests, answers, remarks and blocks.

A request and its answer are `system` entries of the private conversation, so both users find them in
their inboxes. A remark or block concerns one side only: just that user's own devices get an event.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access, Pair
from bridge.core.notices import Notices, notice
from bridge.core.operations import After, Caller, Done, Id, Name, Note, Operations, PageSize, Parameters
from bridge.core.paging import page_of
from bridge.core.quotas import Quotas, reaching
from bridge.core.retrying import retrying
from broker.domain.directory import Contact
from broker.domain.errors import RefusedError
from broker.domain.permissions import UserOperation
from broker.domain.topics import inbox_topic
from broker.ports import BrokerPort, Directory, Notice, all_contacts

States = Literal["contact", "sent", "received", "blocked", "all"]


class ListParameters(Parameters):
    """Which users to list, and which page."""

    state: States = "contact"
    """`contact`: contacts. `sent`, `received`: requests that are not answered yet. `blocked`: users whom
    the caller has blocked. `all`: all of these, and users with a remark."""
    after: After = ""
    limit: PageSize = 100


class ContactView(msgspec.Struct):
    """The caller's relation to another user."""

    user_id: str
    """The other user."""
    state: str
    """`contact`; `sent` or `received` while a request is not answered; `none`."""
    blocked: bool
    """Whether the caller has blocked the user. Nobody learns who has blocked them."""
    remark: str
    """The caller's own name for the user."""
    note: str
    """The text of the request. Empty if it is from a user who may not send the caller messages."""
    name: str
    """The name in the user's profile."""
    avatar: str
    """A URL."""
    updated_at: int
    """Unix ms of the last change."""


class ListResult(msgspec.Struct):
    """One page, ordered by user id."""

    contacts: list[ContactView]
    next: str
    """The `after` of the next page; empty on the last page."""


class PeerParameters(Parameters):
    """The other user."""

    user_id: Id


class RequestParameters(Parameters):
    """The other user, and a text for them."""

    user_id: Id
    note: Note = ""
    """A text for the other user. With a request, it reaches only users who accept messages from the caller:
    a user who accepts them from contacts only gets the request without it."""


class RemarkParameters(Parameters):
    """The other user and the remark."""

    user_id: Id
    remark: Name
    """The caller's own name for the user. Empty removes it."""


class Contacts:
    """The handlers."""

    def __init__(
        self, directory: Directory, access: Access, broker: BrokerPort, notices: Notices, quotas: Quotas
    ) -> None:
        self._directory = directory
        self._access = access
        self._broker = broker
        self._notices = notices
        self._quotas = quotas

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("contacts.list", self.list_contacts)
        operations.add("contacts.request", self.request)
        operations.add("contacts.accept", self.accept)
        operations.add("contacts.reject", self.reject)
        operations.add("contacts.remove", self.remove)
        operations.add("contacts.remark", self.remark)
        operations.add("contacts.block", self.block)
        operations.add("contacts.unblock", self.unblock)

    async def list_contacts(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """List the caller's contacts, contact requests or blocked users."""
        found: list[Contact] = []
        async for contact in all_contacts(self._directory, caller.user, parameters.after):
            if _is(contact, parameters.state):
                found.append(contact)
                if len(found) > parameters.limit:
                    break
        page, following = page_of(found, parameters.limit, lambda contact: contact.peer_id)
        profiles = await self._directory.profiles([contact.peer_id for contact in page])
        asking = [contact.peer_id for contact in page if contact.note and contact.state == "received"]
        heard = await self._access.those_let(caller, asking, UserOperation.MESSAGE) if asking else set()
        views = []
        for contact in page:
            profile = profiles.get(contact.peer_id)
            views.append(
                ContactView(
                    user_id=contact.peer_id,
                    state=contact.state,
                    blocked=contact.blocked,
                    remark=contact.remark,
                    note=contact.note if contact.state == "sent" or contact.peer_id in heard else "",
                    name=profile.name if profile else "",
                    avatar=profile.avatar if profile else "",
                    updated_at=contact.updated_at,
                )
            )
        return ListResult(views, following)

    @retrying
    async def request(self, caller: Caller, parameters: RequestParameters) -> Done:
        """Ask a user to become a contact. If they have already asked the caller, this accepts their
        request. Refused with `exists` if the two are contacts, and with `quota` if the caller has sent too
        many requests within the hour, to anybody or to this user. A request that was withdrawn and is made
        again adds no entry to the user's inbox."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.REQUEST)
        if pair.mine.state == "received":
            await self._become_contacts(pair)
            return Done()
        if pair.mine.state == "sent" and pair.mine.note == parameters.note:
            return Done()
        mine = self._changed(pair.mine, state="sent", note=parameters.note, asked=True)
        theirs = self._changed(pair.theirs, state="received", note=parameters.note)
        note = parameters.note if self._access.hears(pair) else ""
        asks = self._notice(caller.user, parameters.user_id, "contact_requested", note=note)
        # A request that is repeated, or withdrawn and made again, must not fill the other user's inbox.
        quotas, key = self._quotas, reaching(caller.user, parameters.user_id)
        with quotas.contact_requests.once(caller.user), quotas.repeats.once(key):
            await self._write([mine, theirs], [] if pair.mine.asked else [asks])
        return Done()

    @retrying
    async def accept(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Accept the contact request of a user. Refused with `not_found` if there is none."""
        await self._become_contacts(await self._requested(caller, parameters.user_id))
        return Done()

    @retrying
    async def reject(self, caller: Caller, parameters: RequestParameters) -> Done:
        """Reject the contact request of a user. Refused with `not_found` if there is none."""
        pair = await self._requested(caller, parameters.user_id)
        mine = self._changed(pair.mine, state="none", note="")
        theirs = self._changed(pair.theirs, state="none", note="", asked=False)
        answer = self._notice(caller.user, parameters.user_id, "contact_rejected", note=parameters.note)
        await self._write([mine, theirs], [answer])
        return Done()

    @retrying
    async def remove(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Remove a contact, for both users; or withdraw a request that the caller sent."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.REMOVE)
        if pair.mine.state not in ("contact", "sent"):
            raise RefusedError("not_found", f"{parameters.user_id} is not your contact")
        mine = self._changed(pair.mine, state="none", note="")
        theirs = self._changed(pair.theirs, state="none", note="")
        await self._write([mine, theirs], [])
        return Done()

    @retrying
    async def remark(self, caller: Caller, parameters: RemarkParameters) -> Done:
        """Set the caller's own name for a user. Only the caller sees it."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.REMARK)
        await self._write([self._changed(pair.mine, remark=parameters.remark)], [])
        return Done()

    @retrying
    async def block(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Block a user: messages, typing notices, presence and receipts stop in both directions."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.BLOCK)
        if not pair.mine.blocked:
            await self._write([self._changed(pair.mine, blocked=True)], [])
        return Done()

    @retrying
    async def unblock(self, caller: Caller, parameters: PeerParameters) -> Done:
        """Remove the caller's block of a user."""
        pair = await self._access.between(caller, parameters.user_id, UserOperation.BLOCK)
        if pair.mine.blocked:
            await self._write([self._changed(pair.mine, blocked=False)], [])
        return Done()

    async def _requested(self, caller: Caller, peer: str) -> Pair:
        pair = await self._access.between(caller, peer, UserOperation.ANSWER)
        if pair.mine.state != "received":
            raise RefusedError("not_found", f"there is no contact request from {peer}")
        return pair

    async def _become_contacts(self, pair: Pair) -> None:
        mine = self._changed(pair.mine, state="contact", note="", asked=False)
        theirs = self._changed(pair.theirs, state="contact", note="", asked=False)
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

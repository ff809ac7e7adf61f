"""Accounts, contacts and groups.

What changes is worked out by whoever changes it and written in one transaction, together with the
notices it leads to: entries of logs that are not written yet. A change is refused (`conflict`) if
what it was worked out from has changed meanwhile, so nobody needs a lock across processes.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from broker.domain.directory import Account, Ban, Contact, Group, JoinRequest, Membership, Profile
from broker.domain.errors import RefusedError


class AccountChanged(msgspec.Struct, frozen=True):
    """An account was added, disabled, enabled, removed, or given another role or password. `account`
    is as it is now, None if removed."""

    user_id: str
    account: Account | None


class ProfileChanged(msgspec.Struct, frozen=True):
    """What a user says of themselves, or their privacy, is now `profile`."""

    profile: Profile


class ContactChanged(msgspec.Struct, frozen=True):
    """How `contact.user_id` stands to `contact.peer_id` is now this."""

    contact: Contact


class MembershipChanged(msgspec.Struct, frozen=True):
    """A user joined or left a group, or their rights in it changed. `member`: is one now."""

    group_id: str
    user_id: str
    member: bool


class GroupChanged(msgspec.Struct, frozen=True):
    """A group was made, changed or dismissed: the rights of all its members may be others."""

    group: Group


class TokenRevoked(msgspec.Struct, frozen=True):
    """A token is not accepted any more."""

    user_id: str
    token_id: str


DirectoryChange = (
    AccountChanged | ProfileChanged | ContactChanged | MembershipChanged | GroupChanged | TokenRevoked
)


class DirectoryError(RefusedError):
    """The directory refuses an operation."""


class Notice(msgspec.Struct, frozen=True):
    """An entry that a change of the directory leads to, on its way to a log.

    `id`: unique for ever, 1 to 64 characters; the entry's `client_msg_id`. `content`: JSON."""

    id: str
    sender: str
    topic: str
    content: bytes


class GroupWrite(msgspec.Struct, frozen=True):
    """A change of one group. `group.version` is one more than that of the group it was worked out
    from; 1 makes a new one. Its `members` is not looked at."""

    group: Group
    fresh: bool = False
    """First drop all members, bans and requests: those of a dismissed group that had the id."""
    put: Sequence[Membership] = ()
    drop: Sequence[str] = ()
    """Users that are members no more."""
    ban: Sequence[Ban] = ()
    unban: Sequence[str] = ()
    ask: Sequence[JoinRequest] = ()
    answered: Sequence[str] = ()
    """Users whose join requests are done with."""


class AccountDirectory(Protocol):
    """Accounts, their profiles and their tokens."""

    async def account(self, user_id: str) -> Account | None: ...

    async def accounts(self, after: str, limit: int) -> list[Account]:
        """Accounts by id, those after `after` only."""
        ...

    async def add_account(
        self, user_id: str, password: str | None, role: str, inbox_floor: int = 0
    ) -> Account:
        """Refused: `exists`."""
        ...

    async def set_password(self, user_id: str, password: str) -> None:
        """Tokens issued before are not accepted any more."""
        ...

    async def set_disabled(self, user_id: str, disabled: bool) -> None: ...

    async def remove_account(
        self, user_id: str, groups: Sequence[str] | None = None, notices: Sequence[Notice] = ()
    ) -> None:
        """Remove a user, their memberships, bans, requests, contacts (both ways) and tokens. Refused:
        `is_owner` while they own a group that is not dismissed; `conflict` if they are in other groups
        than `groups` (None: whichever they are in)."""
        ...

    async def profiles(self, user_ids: Sequence[str]) -> dict[str, Profile]:
        """The profiles of those users that exist."""
        ...

    async def write_profile(self, profile: Profile) -> None: ...

    async def revoke_token(self, user_id: str, token_id: str, expires_at: int) -> None:
        """Accept a token no more. It is forgotten after it has ended at `expires_at` (Unix s)."""
        ...

    async def is_revoked(self, token_id: str) -> bool: ...

    async def revoke_tokens(self, user_id: str, before: int) -> None:
        """Accept no token of a user that was issued before `before` (Unix s)."""
        ...


class ContactDirectory(Protocol):
    """How users stand to each other."""

    async def contacts_between(self, pairs: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Contact]:
        """Contacts by (user, peer); those that are not stored are left out."""
        ...

    async def contacts(self, user_id: str, after: str, limit: int) -> list[Contact]:
        """A user's contacts by peer id, those after peer `after` only; whatever their state."""
        ...

    async def write_contacts(self, contacts: Sequence[Contact], notices: Sequence[Notice]) -> None:
        """Write some contacts, each with a version one more than the stored one's. Refused:
        `not_found` (a user or peer), `conflict`."""
        ...


class GroupDirectory(Protocol):
    """Groups, their members, bans and join requests."""

    async def membership(self, group_id: str, user_id: str) -> Membership | None: ...

    async def memberships(self, user_id: str) -> list[Membership]: ...

    async def group(self, group_id: str) -> Group | None: ...

    async def groups(self, after: str, limit: int) -> list[Group]:
        """Groups by id, dismissed ones included."""
        ...

    async def groups_by_id(self, group_ids: Sequence[str]) -> dict[str, Group]: ...

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]: ...

    async def members_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Membership]: ...

    async def admins(self, group_id: str) -> list[Membership]:
        """The owner and the admins."""
        ...

    async def ban(self, group_id: str, user_id: str) -> Ban | None: ...

    async def bans_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Ban]: ...

    async def bans(self, group_id: str, after: str, limit: int) -> list[Ban]: ...

    async def join_requests(self, group_id: str, after: str, limit: int) -> list[JoinRequest]: ...

    async def join_request(self, group_id: str, user_id: str) -> JoinRequest | None: ...

    async def write_group(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        """Write a change of a group. Refused: `not_found` (a user), `exists` (version 1, and there is
        such a group), `conflict`."""
        ...


class PendingNotices(Protocol):
    """Notices on their way to their logs."""

    async def notices(self, limit: int) -> list[Notice]:
        """Notices that were not dropped yet, in the order they were written."""
        ...

    async def drop_notices(self, ids: Sequence[str]) -> None:
        """These have reached their logs."""
        ...


class Directory(AccountDirectory, ContactDirectory, GroupDirectory, PendingNotices, Protocol):
    """Accounts, contacts and groups. Methods raise `DirectoryError` for what they refuse and
    `StoreError` when the store fails; the callers fail closed."""

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        """Have every committed change told, on the event loop's thread, before the call that
        made it returns."""
        ...


_PAGE = 1000


async def all_contacts(directory: ContactDirectory, user_id: str, after: str = "") -> AsyncIterator[Contact]:
    """A user's contacts by peer id, those after peer `after` only, read page by page."""
    while True:
        page = await directory.contacts(user_id, after, _PAGE)
        for contact in page:
            yield contact
        if len(page) < _PAGE:
            return
        after = page[-1].peer_id

"""The directory: accounts, contacts, groups, and the notices that their changes lead to.

A caller reads, works out the new state and writes it in one transaction, together with its notices. A notice
is a log entry that has not been written to its log yet. A write is refused with `conflict` if what the caller
had read has changed meanwhile, so no lock across processes is needed.

Methods raise `DirectoryError` when they refuse and `StoreError` when the store fails. Callers fail closed:
they treat a failure as a refusal.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from broker.domain.directory import Account, Ban, Contact, Group, JoinRequest, Membership, Profile
from broker.domain.errors import RefusedError
from broker.ports.identity import Identified


class AccountChanged(msgspec.Struct, frozen=True):
    """An account was added, disabled, enabled, removed, or given another role or password. `account` is its
    new state, None if it was removed."""

    user_id: str
    account: Account | None


class ProfileChanged(msgspec.Struct, frozen=True):
    """A user has changed their profile or their privacy settings. `profile` is the new state."""

    profile: Profile


class ContactChanged(msgspec.Struct, frozen=True):
    """A contact has changed, in the direction from `contact.user_id` to `contact.peer_id`. `contact` is the
    new state."""

    contact: Contact


class MembershipChanged(msgspec.Struct, frozen=True):
    """A user joined or left a group, or their rights in it changed. `member`: they are a member now."""

    group_id: str
    user_id: str
    member: bool


class GroupChanged(msgspec.Struct, frozen=True):
    """A group was made, changed or dismissed. The rights of all its members may have changed."""

    group: Group


class TokenRevoked(msgspec.Struct, frozen=True):
    """A token is no longer accepted."""

    user_id: str
    token_id: str


DirectoryChange = (
    AccountChanged | ProfileChanged | ContactChanged | MembershipChanged | GroupChanged | TokenRevoked
)


class DirectoryError(RefusedError):
    """The directory refuses an operation. `code` says why."""


class Notice(msgspec.Struct, frozen=True):
    """A log entry that a change of the directory leads to. It waits to be written to the log of `topic`.

    `id`: unique for all time, 1 to 64 characters. It becomes the entry's `client_msg_id`, so a notice that is
    written twice is stored once. `content`: JSON."""

    id: str
    sender: str
    topic: str
    content: bytes


class GroupWrite(msgspec.Struct, frozen=True):
    """A change of one group. `group.version` is one more than the version it was worked out from; version 1
    makes a new group. `group.members` is ignored: the directory counts the members."""

    group: Group
    fresh: bool = False
    """Delete all members, bans, join requests and kept mutes first: they belong to a dismissed group with the
    same id. Who has left that group is still known."""
    put: Sequence[Membership] = ()
    """Members to add or to change."""
    drop: Sequence[str] = ()
    """Users who are no longer members. The directory keeps their mutes: see `kept_mutes`."""
    left: Sequence[str] = ()
    """Those of `drop` who left by themselves: `who_left` returns them until they are members again."""
    ban: Sequence[Ban] = ()
    unban: Sequence[str] = ()
    """Users whose bans end."""
    ask: Sequence[JoinRequest] = ()
    answered: Sequence[str] = ()
    """Users whose join requests have been answered."""


class IdTwin(msgspec.Struct, frozen=True):
    """An id that differs from another in case only."""

    kind: str
    """`user` or `group`."""
    id: str
    other: str


class AccountDirectory(Protocol):
    """Accounts, their profiles and their tokens."""

    async def account(self, user_id: str) -> Account | None: ...

    async def accounts(self, after: str, limit: int) -> list[Account]:
        """At most `limit` accounts in the order of their ids, from the first id after `after`."""
        ...

    async def add_account(
        self,
        user_id: str,
        password: str | None,
        role: str,
        inbox_floor: int = 0,
        *,
        reuse_id: bool = False,
    ) -> Account:
        """Add an account. None as `password`: the user cannot log in with one. Entries of the inbox up to
        offset `inbox_floor` belong to an earlier user with this id. Refused: as `check_new_id`."""
        ...

    async def check_new_id(self, user_id: str, *, reuse: bool) -> None:
        """Refuse (`exists`) an id that no account can be added with: an account has it, or one that differs
        in case only; or, without `reuse`, an account had it that was removed."""
        ...

    async def id_twins(self, limit: int) -> tuple[list[IdTwin], int]:
        """At most `limit` of the ids that differ from another in case only, and the number of all. An earlier
        version has given them; they stay."""
        ...

    async def set_password(self, user_id: str, password: str) -> None:
        """Set the password; tokens issued until now are no longer accepted. Refused: `not_found`."""
        ...

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        """Disable or enable an account. Refused: `not_found`."""
        ...

    async def remove_account(
        self, user_id: str, groups: Sequence[str] | None = None, notices: Sequence[Notice] = ()
    ) -> None:
        """Remove an account with its memberships, bans, join requests, contacts (both directions), revoked
        tokens, and what is known of groups that it left. Refused: `not_found`; `is_owner` while the user
        owns a group that is not dismissed; `conflict` if the user's groups are not exactly `groups` (None:
        any groups)."""
        ...

    async def profiles(self, user_ids: Sequence[str]) -> dict[str, Profile]:
        """The profiles of those users that exist."""
        ...

    async def write_profile(self, profile: Profile) -> None:
        """Refused: `not_found`."""
        ...

    async def revoke_token(self, user_id: str, token_id: str, expires_at: int) -> None:
        """Accept a token no longer. The directory forgets it a day after it has expired at `expires_at` (Unix
        s): the wall clock may be set back. Refused: `not_found` (the user)."""
        ...

    async def is_revoked(self, token_id: str) -> bool: ...

    async def revoke_tokens(self, user_id: str, before: int) -> None:
        """Accept no token of a user that was issued before `before` (Unix s). Refused: `not_found`."""
        ...


class ContactDirectory(Protocol):
    """Contacts. Each direction between two users is a contact of its own."""

    async def contacts_between(self, pairs: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Contact]:
        """Contacts by (user, peer). Pairs without a stored contact are left out."""
        ...

    async def contacts(self, user_id: str, after: str, limit: int) -> list[Contact]:
        """At most `limit` contacts of a user, in any state, in the order of the peers' ids, from the first
        peer after `after`."""
        ...

    async def write_contacts(self, contacts: Sequence[Contact], notices: Sequence[Notice]) -> None:
        """Write contacts, all or none. Each has a version one more than the stored one, or 1 if none is
        stored. Refused: `not_found` (a user or a peer), `conflict`."""
        ...


class GroupDirectory(Protocol):
    """Groups, their members, bans and join requests."""

    async def membership(self, group_id: str, user_id: str) -> Membership | None: ...

    async def memberships(self, user_id: str) -> list[Membership]:
        """A user's memberships, in the order of the groups' ids."""
        ...

    async def group(self, group_id: str) -> Group | None: ...

    async def same_group(self, group_id: str) -> str | None:
        """The id of a group that has this id, or one that differs in case only. None if there is none."""
        ...

    async def groups(self, after: str, limit: int) -> list[Group]:
        """At most `limit` groups in the order of their ids, from the first id after `after`. Dismissed
        groups are included."""
        ...

    async def groups_by_id(self, group_ids: Sequence[str]) -> dict[str, Group]: ...

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        """At most `limit` members in the order of their ids, from the first user after `after`. Bans and
        join requests are listed the same way."""
        ...

    async def members_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Membership]: ...

    async def admins(self, group_id: str) -> list[Membership]:
        """The owner and the admins, in the order of their ids."""
        ...

    async def ban(self, group_id: str, user_id: str) -> Ban | None: ...

    async def bans_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Ban]: ...

    async def who_left(self, group_id: str, user_ids: Sequence[str]) -> set[str]:
        """Those of the given users who left the group by themselves and have not been members since."""
        ...

    async def kept_mutes(self, group_id: str, user_ids: Sequence[str]) -> dict[str, int]:
        """The `muted_until` that those of the given users had who were muted when they ceased to be members,
        and have not been members since."""
        ...

    async def bans(self, group_id: str, after: str, limit: int) -> list[Ban]: ...

    async def join_requests(self, group_id: str, after: str, limit: int) -> list[JoinRequest]: ...

    async def join_request(self, group_id: str, user_id: str) -> JoinRequest | None: ...

    async def write_group(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        """Write a change of a group. Refused: `not_found` (a user), `exists` (version 1, but there is
        already a group with this id), `conflict`."""
        ...


class Floors(Protocol):
    """From which entry on somebody may read, in all parts of the directory."""

    async def lower_floors(self, groups: Mapping[str, int], inboxes: Mapping[str, int]) -> None:
        """Group or user -> the head of its log or inbox: no floor, and no member's `joined_seq`, is beyond
        it any more. Tells no listener: call it before there is any."""
        ...


class PendingNotices(Protocol):
    """Notices that have not reached their logs yet."""

    async def notices(self, limit: int) -> list[Notice]:
        """The `limit` oldest notices, in the order of writing."""
        ...

    async def drop_notices(self, ids: Sequence[str]) -> None:
        """Delete notices that have reached their logs."""
        ...


class Directory(
    AccountDirectory, ContactDirectory, GroupDirectory, PendingNotices, Floors, Identified, Protocol
):
    """The whole directory. One store keeps all parts, because one transaction can change several."""

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        """Call `callback` with every committed change: on the event loop's thread, and before the method
        that made the change returns. If other nodes share the directory, with their changes, too, as soon as
        they are known; several changes of the same thing may come as one."""
        ...


_PAGE = 1000


async def all_contacts(directory: ContactDirectory, user_id: str, after: str = "") -> AsyncIterator[Contact]:
    """A user's contacts in the order of the peers' ids, from the first peer after `after`; read in pages."""
    while True:
        page = await directory.contacts(user_id, after, _PAGE)
        for contact in page:
            yield contact
        if len(page) < _PAGE:
            return
        after = page[-1].peer_id

"""The records of the directory: accounts, profiles, contacts, groups. The permissions decide by them."""

from typing import Literal

import msgspec

SYSTEM = "system"
"""The sender of the server's own messages. No account may have this id."""


def is_system(user_id: str) -> bool:
    """Whether an id is the server's own, or differs from it in case only."""
    return user_id.lower() == SYSTEM


Audience = Literal["everyone", "contacts", "nobody"]
ContactState = Literal["none", "sent", "received", "contact"]
GroupRole = Literal["owner", "admin", "member"]
JoinPolicy = Literal["open", "approval", "closed"]
Ranks = Literal["members", "admins"]
"""Who may do something in a group: all members, or only the admins and the owner."""


class Account(msgspec.Struct, frozen=True):
    """An account: one user, service or administrator."""

    user_id: str
    role: str = "user"
    """`user`, `admin`, or `service`: a back-end service, which may act for users."""
    disabled: bool = False
    password_hash: str | None = None
    created_at: int = 0
    """Unix ms."""
    inbox_floor: int = 0
    """Inbox entries up to this offset belong to an earlier account with the same id."""
    tokens_after: int = 0
    """Unix seconds. Tokens issued before are not accepted."""


class Profile(msgspec.Struct, frozen=True):
    """A user's public profile and privacy settings."""

    user_id: str
    name: str = ""
    avatar: str = ""
    """A URL."""
    who_may_message: Literal["everyone", "contacts"] = "everyone"
    who_sees_presence: Audience = "contacts"
    read_receipts: bool = True
    """Whether others are told what this user has read."""
    who_may_add_me: Audience = "everyone"
    """Who may add this user to groups: nobody whom `who_may_message` excludes, and of the others these."""


class Contact(msgspec.Struct, frozen=True):
    """The relation of `user_id` to `peer_id`. The other direction is a record of its own.

    `state`: an unanswered request is `sent` on one side and `received` on the other."""

    user_id: str
    peer_id: str
    state: ContactState = "none"
    blocked: bool = False
    """Whether `user_id` has blocked `peer_id`."""
    remark: str = ""
    """The user's own name for the peer. Only the user sees it."""
    note: str = ""
    """The text of the contact request."""
    updated_at: int = 0
    """Unix ms."""
    version: int = 0
    """The number of changes so far; 0 means that the record is not stored."""
    asked: bool = False
    """Whether the peer's inbox has an entry about a request of the user that the peer has not answered. A
    request that is withdrawn and made again adds no other."""


class Group(msgspec.Struct, frozen=True):
    """A group. Its members can still read it after it was dismissed."""

    group_id: str
    name: str
    owner: str
    created_at: int
    """Unix ms."""
    members: int
    avatar: str = ""
    announcement: str = ""
    muted_until: int = 0
    """Unix ms until which only admins may post; 0 for not muted."""
    who_may_invite: Ranks = "members"
    who_may_post: Ranks = "members"
    join: JoinPolicy = "approval"
    """How users join without an invitation: at once, after an admin's approval, or not at all."""
    history_visible: bool = False
    """Whether new members see the messages sent before they joined."""
    dismissed_at: int = 0
    """Unix ms; 0 for not dismissed."""
    floor: int = 0
    """Entries up to this offset belong to an earlier group with the same id."""
    version: int = 1
    """The number of changes of the group, its members, bans and join requests."""


class Membership(msgspec.Struct, frozen=True):
    """A user's membership of a group. They may not read entries up to `joined_seq`."""

    group_id: str
    user_id: str
    role: str
    """A `GroupRole`."""
    joined_seq: int
    muted_until: int = 0
    """Unix ms; 0 for not muted."""


class Ban(msgspec.Struct, frozen=True):
    """A user may not come back to a group before `until`: Unix ms, 0 for never."""

    group_id: str
    user_id: str
    until: int = 0


class JoinRequest(msgspec.Struct, frozen=True):
    """A user's request to join a group."""

    group_id: str
    user_id: str
    note: str
    created_at: int
    """Unix ms."""

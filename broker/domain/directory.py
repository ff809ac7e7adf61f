"""Who is who: accounts, contacts, groups. What the directory keeps and the permissions are about."""

from typing import Literal

import msgspec

SYSTEM = "system"
"""The sender of what the server itself says. No account may have this id."""

Audience = Literal["everyone", "contacts", "nobody"]
ContactState = Literal["none", "sent", "received", "contact"]
GroupRole = Literal["owner", "admin", "member"]
JoinPolicy = Literal["open", "approval", "closed"]
Ranks = Literal["members", "admins"]
"""Who of a group: all of it, or its admins and owner."""


class Account(msgspec.Struct, frozen=True):
    """A user as the directory knows them."""

    user_id: str
    role: str = "user"
    """`user`, `admin`, or `service`: a back-end service, which may speak for users."""
    disabled: bool = False
    password_hash: str | None = None
    created_at: int = 0
    """Unix ms."""
    inbox_floor: int = 0
    """Entries of the inbox up to this offset were another's, who had the id before."""
    tokens_after: int = 0
    """Unix seconds: tokens issued before are not accepted."""


class Profile(msgspec.Struct, frozen=True):
    """What a user says of themselves, and their privacy."""

    user_id: str
    name: str = ""
    avatar: str = ""
    """A URL."""
    who_may_message: Literal["everyone", "contacts"] = "everyone"
    who_sees_presence: Audience = "contacts"
    read_receipts: bool = True
    """Whether others are told what this user has read."""


class Contact(msgspec.Struct, frozen=True):
    """How `user_id` stands to `peer_id`; the other direction is a contact of its own.

    `state`: `sent` and `received` are the two sides of a request that is not answered yet."""

    user_id: str
    peer_id: str
    state: ContactState = "none"
    blocked: bool = False
    """`user_id` wants nothing of `peer_id`."""
    remark: str = ""
    note: str = ""
    """What the request said."""
    updated_at: int = 0
    """Unix ms."""
    version: int = 0
    """Counts the changes; 0 is not stored."""


class Group(msgspec.Struct, frozen=True):
    """A group. A dismissed one can still be read by those who were in it."""

    group_id: str
    name: str
    owner: str
    created_at: int
    """Unix ms."""
    members: int
    avatar: str = ""
    announcement: str = ""
    muted_until: int = 0
    """Unix ms until which only admins may post; 0 is not muted."""
    who_may_invite: Ranks = "members"
    who_may_post: Ranks = "members"
    join: JoinPolicy = "approval"
    """Whether who is not invited may join: at once, when an admin approves, or not at all."""
    history_visible: bool = False
    """Whether new members see what was said before they joined."""
    dismissed_at: int = 0
    """Unix ms; 0 is not dismissed."""
    floor: int = 0
    """Entries up to this offset are of another group, which had the id before."""
    version: int = 1
    """Counts the changes of the group, its members, bans and requests included."""


class Membership(msgspec.Struct, frozen=True):
    """A user's place in a group. Entries up to `joined_seq` stay unread by them."""

    group_id: str
    user_id: str
    role: str
    """A `GroupRole`."""
    joined_seq: int
    muted_until: int = 0
    """Unix ms; 0 is not muted."""


class Ban(msgspec.Struct, frozen=True):
    """A user who may not come back to a group before `until` (Unix ms; 0: ever)."""

    group_id: str
    user_id: str
    until: int = 0


class JoinRequest(msgspec.Struct, frozen=True):
    """A user who asks to be let into a group."""

    group_id: str
    user_id: str
    note: str
    created_at: int
    """Unix ms."""

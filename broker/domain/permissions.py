"""Who may do what: one table, asked by the topic rules, by RPC and by gRPC alike.

An operation is decided by where its actor stands: to another user (`Relation`) or in a group
(`Rank`). A cell of the table is a rule: it looks at the facts of the case and answers None for
yes, or the contract's error code. An operation on another member of a group is decided twice: by
the rank of the actor, and by whom that rank may touch (`_TOUCHES`).
"""

import enum
from collections.abc import Callable, Iterable, Mapping

import msgspec

from broker.domain.directory import Contact, Group, Membership, Profile


class Relation(enum.Enum):
    """How two users stand to each other."""

    SELF = "self"
    CONTACT = "contact"
    STRANGER = "stranger"
    BLOCKED = "blocked"
    """One of them has blocked the other, whichever."""


class Rank(enum.Enum):
    """Where somebody stands in a group."""

    SYSTEM = "system"
    """The server, its administrators and services that speak for it."""
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    OUTSIDER = "outsider"
    BANNED = "banned"


class UserOperation(enum.Enum):
    """What one user does to another."""

    MESSAGE = "message"
    TYPE = "type"
    SEE_PRESENCE = "see presence"
    SEE_READ = "see what was read"
    SEE_DELIVERED = "see what was delivered"
    EDIT = "edit"
    RECALL = "recall"
    REQUEST = "request contact"
    ANSWER = "answer request"
    REMOVE = "remove contact"
    REMARK = "remark contact"
    BLOCK = "block"


class GroupOperation(enum.Enum):
    """What somebody does in a group."""

    POST = "post"
    READ = "read"
    EDIT = "edit"
    RECALL = "recall"
    RECALL_OTHERS = "recall others"
    SEE = "see"
    UPDATE = "update"
    INVITE = "invite"
    JOIN = "join"
    ANSWER = "answer request"
    LEAVE = "leave"
    REMOVE = "remove member"
    BAN = "ban"
    UNBAN = "unban"
    MUTE = "mute member"
    MUTE_ALL = "mute all"
    SET_ROLE = "set role"
    TRANSFER = "transfer"
    DISMISS = "dismiss"


class Facts(msgspec.Struct, frozen=True):
    """What a rule may look at. Times are Unix ms."""

    now: int = 0
    profile: Profile | None = None
    """Of the other user."""
    group: Group | None = None
    membership: Membership | None = None
    """Of the actor."""
    sent_at: int = 0
    """When the message in question was sent."""
    recall_ms: int = 0
    """For how long its sender may recall a message."""
    edit_ms: int = 0


Rule = Callable[[Facts], str | None]


def _yes(_: Facts) -> str | None:
    return None


def _no(code: str) -> Rule:
    return lambda _: code


def _if_open_to_all(facts: Facts) -> str | None:
    return None if facts.profile and facts.profile.who_may_message == "everyone" else "not_contact"


def _if_presence_for_contacts(facts: Facts) -> str | None:
    return "not_authorized" if not facts.profile or facts.profile.who_sees_presence == "nobody" else None


def _if_presence_for_all(facts: Facts) -> str | None:
    return None if facts.profile and facts.profile.who_sees_presence == "everyone" else "not_authorized"


def _if_gives_receipts(facts: Facts) -> str | None:
    return None if facts.profile and facts.profile.read_receipts else "not_authorized"


def _if_recallable(facts: Facts) -> str | None:
    return None if facts.now - facts.sent_at <= facts.recall_ms else "too_late"


def _if_editable(facts: Facts) -> str | None:
    return None if facts.now - facts.sent_at <= facts.edit_ms else "too_late"


def _if_not_muted(facts: Facts) -> str | None:
    muted_until = facts.membership.muted_until if facts.membership else 0
    return "muted" if muted_until > facts.now else None


def _if_may_post(facts: Facts) -> str | None:
    group = facts.group
    if group is None or group.who_may_post == "admins":
        return "not_authorized"
    return "muted" if group.muted_until > facts.now else _if_not_muted(facts)


def _if_members_invite(facts: Facts) -> str | None:
    return None if facts.group and facts.group.who_may_invite == "members" else "not_authorized"


def _if_joinable(facts: Facts) -> str | None:
    return None if facts.group and facts.group.join != "closed" else "not_member"


_BLOCKED = _no("blocked")
_NOT_ALLOWED = _no("not_authorized")
_NOT_ONESELF = _no("invalid_params")
_NOT_MEMBER = _no("not_member")

_Cells = tuple[Rule, Rule, Rule, Rule]

_BETWEEN_USERS: Mapping[UserOperation, _Cells] = {
    #                              self          contact                    stranger              blocked
    UserOperation.MESSAGE:           (_yes,         _yes,                      _if_open_to_all,      _BLOCKED),
    UserOperation.TYPE:              (_yes,         _yes,                      _if_open_to_all,      _BLOCKED),
    UserOperation.SEE_PRESENCE:      (_yes,         _if_presence_for_contacts, _if_presence_for_all, _BLOCKED),
    UserOperation.SEE_READ:          (_yes,         _if_gives_receipts,        _if_gives_receipts,   _BLOCKED),
    UserOperation.SEE_DELIVERED:     (_yes,         _yes,                      _yes,                 _BLOCKED),
    UserOperation.EDIT:              (_if_editable, _if_editable,              _if_editable,         _BLOCKED),
    UserOperation.RECALL:            (_if_recallable, _if_recallable,          _if_recallable,       _if_recallable),
    UserOperation.REQUEST:           (_NOT_ONESELF, _no("exists"),             _yes,                 _BLOCKED),
    UserOperation.ANSWER:            (_NOT_ONESELF, _no("exists"),             _yes,                 _BLOCKED),
    UserOperation.REMOVE:            (_NOT_ONESELF, _yes,                      _yes,                 _yes),
    UserOperation.REMARK:            (_NOT_ONESELF, _yes,                      _yes,                 _yes),
    UserOperation.BLOCK:             (_NOT_ONESELF, _yes,                      _yes,                 _yes),
}  # fmt: skip
_RELATIONS = {relation: i for i, relation in enumerate(Relation)}

_Row = tuple[Rule, Rule, Rule, Rule, Rule, Rule]

_IN_GROUPS: Mapping[GroupOperation, _Row] = {
    #                            system  owner                admin                member               outsider      banned
    GroupOperation.POST:          (_yes, _yes,                _if_not_muted,       _if_may_post,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.READ:          (_yes, _yes,                _yes,                _yes,                _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.EDIT:          (_yes, _if_editable,        _if_editable,        _if_editable,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.RECALL:        (_yes, _yes,                _yes,                _if_recallable,      _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.RECALL_OTHERS: (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.SEE:           (_yes, _yes,                _yes,                _yes,                _if_joinable, _NOT_MEMBER),
    GroupOperation.UPDATE:        (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.INVITE:        (_yes, _yes,                _yes,                _if_members_invite,  _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.JOIN:          (_yes, _no("exists"),       _no("exists"),       _no("exists"),       _if_joinable, _no("banned")),
    GroupOperation.ANSWER:        (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.LEAVE:         (_yes, _no("is_owner"),     _yes,                _yes,                _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.REMOVE:        (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.BAN:           (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.UNBAN:         (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.MUTE:          (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.MUTE_ALL:      (_yes, _yes,                _yes,                _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.SET_ROLE:      (_yes, _yes,                _NOT_ALLOWED,        _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.TRANSFER:      (_yes, _yes,                _NOT_ALLOWED,        _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
    GroupOperation.DISMISS:       (_yes, _yes,                _NOT_ALLOWED,        _NOT_ALLOWED,        _NOT_MEMBER,  _NOT_MEMBER),
}  # fmt: skip
_RANKS = {rank: i for i, rank in enumerate(Rank)}

_IN_DISMISSED = frozenset((GroupOperation.READ, GroupOperation.SEE, GroupOperation.LEAVE))
"""What is left to do in a group that was dismissed."""

_OUTSIDE = frozenset((Rank.MEMBER, Rank.OUTSIDER, Rank.BANNED))
_TOUCHES: Mapping[Rank, frozenset[Rank]] = {
    Rank.SYSTEM: _OUTSIDE | {Rank.ADMIN},
    Rank.OWNER: _OUTSIDE | {Rank.ADMIN},
    Rank.ADMIN: _OUTSIDE,
}


Contacts = Mapping[tuple[str, str], Contact]
"""Contacts by (user, peer); those that are not stored are not there."""


def both_ways(user: str, peers: Iterable[str]) -> list[tuple[str, str]]:
    """The contacts that say how a user and some peers stand to each other."""
    return [pair for peer in peers for pair in ((user, peer), (peer, user))]


def relation(user: str, peer: str, contacts: Contacts) -> Relation:
    """How two users stand to each other."""
    if user == peer:
        return Relation.SELF
    mine, theirs = contacts.get((user, peer)), contacts.get((peer, user))
    if (mine and mine.blocked) or (theirs and theirs.blocked):
        return Relation.BLOCKED
    return Relation.CONTACT if theirs and theirs.state == "contact" else Relation.STRANGER


def rank(membership: Membership | None, is_banned: bool = False) -> Rank:
    """Where a user stands in a group."""
    if membership is None:
        return Rank.BANNED if is_banned else Rank.OUTSIDER
    return Rank(membership.role)


def between_users(operation: UserOperation, standing: Relation, facts: Facts) -> str | None:
    """None if the operation is allowed, else the error code."""
    return _BETWEEN_USERS[operation][_RELATIONS[standing]](facts)


def lets(profile: Profile, other: str, operation: UserOperation, contacts: Contacts) -> bool:
    """Whether the user of the profile lets another see something of them."""
    standing = relation(other, profile.user_id, contacts)
    return between_users(operation, standing, Facts(profile=profile)) is None


def in_group(operation: GroupOperation, standing: Rank, facts: Facts) -> str | None:
    """None if the operation is allowed, else the error code. `facts.group` must be given."""
    if facts.group is not None and facts.group.dismissed_at and operation not in _IN_DISMISSED:
        return "dismissed" if standing not in (Rank.OUTSIDER, Rank.BANNED) else "not_member"
    return _IN_GROUPS[operation][_RANKS[standing]](facts)


def may_read(membership: Membership) -> bool:
    """Whether a member may read the group, as `in_group` says for any group."""
    return in_group(GroupOperation.READ, rank(membership), Facts(membership=membership)) is None


def touches(actor: Rank, target: Rank) -> str | None:
    """None if who may do something to members may do it to one of this rank."""
    if target in _TOUCHES.get(actor, ()):
        return None
    return "is_owner" if target is Rank.OWNER else "not_authorized"


_WORDS: Mapping[str, str] = {
    "blocked": "one of the two has blocked the other",
    "not_contact": "they take messages of their contacts only",
    "too_late": "too much time has passed",
    "muted": "muted",
    "not_member": "not a member of this group",
    "not_authorized": "not allowed to",
    "exists": "this is so already",
    "banned": "banned from this group",
    "is_owner": "not for the owner: transfer or dismiss the group first",
    "dismissed": "the group was dismissed",
    "invalid_params": "not with oneself",
}


def in_words(code: str) -> str:
    """Why, for people."""
    return _WORDS[code]

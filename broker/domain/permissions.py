"""Who may do what: one table for the topic rules, RPC and gRPC.

The actor's relation to another user (`Relation`) or rank in a group (`Rank`) selects a cell of the table.
A cell is a rule: it looks at the facts of the case and returns None for yes, or an error code (docs/api.md).
An operation on another member of a group needs two decisions: the table's for the actor's rank, and
`_TOUCHES` for the ranks that the actor may act on.
"""

import enum
from collections.abc import Callable, Iterable, Mapping

import msgspec

from broker.domain.directory import Contact, Group, Membership, Profile


class Relation(enum.Enum):
    """The relation between two users."""

    SYSTEM = "system"
    """The actor is the server, an administrator, or a service that acts for it."""
    SELF = "self"
    CONTACT = "contact"
    STRANGER = "stranger"
    BLOCKED = "blocked"
    """Either of the two has blocked the other."""


class Rank(enum.Enum):
    """A user's rank in a group."""

    SYSTEM = "system"
    """The server, its administrators, and services that act for it."""
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    OUTSIDER = "outsider"
    LEFT = "left"
    """Was a member and left. Comes back only by asking to join."""
    BANNED = "banned"


class UserOperation(enum.Enum):
    """An operation of one user on another."""

    MESSAGE = "message"
    ADD = "add to a group"
    APPOINT = "give a rank in a group"
    ASK_TO_JOIN = "ask an admin to join a group"
    MENTION = "mention in a group"
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
    """An operation in a group."""

    POST = "post"
    READ = "read"
    EDIT = "edit"
    RECALL = "recall"
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
    """The facts that the rules decide by. Times are Unix ms."""

    now: int = 0
    profile: Profile | None = None
    """The other user's."""
    group: Group | None = None
    membership: Membership | None = None
    """The actor's."""
    is_sender: bool = True
    """Whether the actor sent the message to edit or recall."""
    sent_at: int = 0
    """When the message to edit or recall was sent."""
    recall_ms: int = 0
    """How long after sending a message its sender may recall it."""
    edit_ms: int = 0
    """How long after sending a message its sender may edit it."""


Rule = Callable[[Facts], str | None]


def _yes(_: Facts) -> str | None:
    return None


def _no(code: str) -> Rule:
    return lambda _: code


def _all(*rules: Rule) -> Rule:
    """Allowed if each rule allows it. The first refusal counts."""
    return lambda facts: next((code for rule in rules if (code := rule(facts)) is not None), None)


def _if_open_to_all(facts: Facts) -> str | None:
    return None if facts.profile and facts.profile.who_may_message == "everyone" else "not_contact"


def _if_contacts_add(facts: Facts) -> str | None:
    return "not_authorized" if not facts.profile or facts.profile.who_may_add_me == "nobody" else None


def _if_all_add(facts: Facts) -> str | None:
    if facts.profile and facts.profile.who_may_add_me == "contacts":
        return "not_contact"
    return _if_contacts_add(facts)


def _if_presence_for_contacts(facts: Facts) -> str | None:
    return "not_authorized" if not facts.profile or facts.profile.who_sees_presence == "nobody" else None


def _if_presence_for_all(facts: Facts) -> str | None:
    return None if facts.profile and facts.profile.who_sees_presence == "everyone" else "not_authorized"


def _if_gives_receipts(facts: Facts) -> str | None:
    return None if facts.profile and facts.profile.read_receipts else "not_authorized"


def _if_sender(facts: Facts) -> str | None:
    return None if facts.is_sender else "not_authorized"


def _if_in_time_to_recall(facts: Facts) -> str | None:
    return None if facts.now - facts.sent_at <= facts.recall_ms else "too_late"


def _if_in_time_to_edit(facts: Facts) -> str | None:
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


def _if_there(facts: Facts) -> str | None:
    return "not_found" if facts.group is None or facts.group.dismissed_at else None


def _if_known(facts: Facts) -> str | None:
    """A closed or dismissed group answers users who are not members as if it did not exist."""
    return "not_found" if facts.group and facts.group.join == "closed" else _if_there(facts)


_BLOCKED = _no("blocked")
_NOT_ALLOWED = _no("not_authorized")
_NOT_ONESELF = _no("invalid_params")
_NOT_MEMBER = _all(_if_known, _no("not_member"))
# The answer to who publishes, whether or not there is such a group.
_NOT_HERE = _no("not_member")

# Whoever adds a user can write to them, in messages and in the name of the group.
_if_addable = _all(_if_open_to_all, _if_all_add)
_if_recallable = _all(_if_sender, _if_in_time_to_recall)
_if_editable = _all(_if_sender, _if_in_time_to_edit)

_Cells = tuple[Rule, Rule, Rule, Rule, Rule]

# An edit says something new, as a message does: in each column its rule begins with the one for sending.
# A delivered receipt says that a device is online, as a presence does: its row is that of the presence.
_BETWEEN_USERS: Mapping[UserOperation, _Cells] = {
    #                              system       self            contact                    stranger                               blocked
    UserOperation.MESSAGE:        (_yes,       _yes,           _yes,                      _if_open_to_all,                       _BLOCKED),
    UserOperation.ADD:            (_yes,       _yes,           _if_contacts_add,          _if_addable,                           _BLOCKED),
    UserOperation.APPOINT:        (_yes,       _yes,           _yes,                      _yes,                                  _BLOCKED),
    UserOperation.ASK_TO_JOIN:    (_yes,       _yes,           _yes,                      _yes,                                  _BLOCKED),
    UserOperation.MENTION:        (_yes,       _yes,           _yes,                      _yes,                                  _BLOCKED),
    UserOperation.TYPE:           (_yes,       _yes,           _yes,                      _if_open_to_all,                       _BLOCKED),
    UserOperation.SEE_PRESENCE:   (_yes,       _yes,           _if_presence_for_contacts, _if_presence_for_all,                  _BLOCKED),
    UserOperation.SEE_READ:       (_yes,       _yes,           _if_gives_receipts,        _if_gives_receipts,                    _BLOCKED),
    UserOperation.SEE_DELIVERED:  (_yes,       _yes,           _if_presence_for_contacts, _if_presence_for_all,                  _BLOCKED),
    UserOperation.EDIT:           (_if_sender, _if_editable,   _if_editable,              _all(_if_open_to_all, _if_editable),   _BLOCKED),
    UserOperation.RECALL:         (_yes,       _if_recallable, _if_recallable,            _if_recallable,                        _if_recallable),
    UserOperation.REQUEST:        (_yes,       _NOT_ONESELF,   _no("exists"),             _yes,                                  _BLOCKED),
    UserOperation.ANSWER:         (_yes,       _NOT_ONESELF,   _no("exists"),             _yes,                                  _BLOCKED),
    UserOperation.REMOVE:         (_yes,       _NOT_ONESELF,   _yes,                      _yes,                                  _yes),
    UserOperation.REMARK:         (_yes,       _NOT_ONESELF,   _yes,                      _yes,                                  _yes),
    UserOperation.BLOCK:          (_yes,       _NOT_ONESELF,   _yes,                      _yes,                                  _yes),
}  # fmt: skip
_RELATIONS = {relation: i for i, relation in enumerate(Relation)}

_if_not_banned = _all(_if_known, _no("banned"))
_edit_as_admin = _all(_if_not_muted, _if_editable)
_edit_as_member = _all(_if_may_post, _if_editable)

_Row = tuple[Rule, Rule, Rule, Rule, Rule, Rule, Rule]

_IN_GROUPS: Mapping[GroupOperation, _Row] = {
    #                            system       owner           admin           member              outsider     left         banned
    GroupOperation.POST:     (_yes,       _yes,           _if_not_muted,  _if_may_post,       _NOT_HERE,   _NOT_HERE,   _NOT_HERE),
    GroupOperation.READ:     (_yes,       _yes,           _yes,           _yes,               _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.EDIT:     (_if_sender, _if_editable,   _edit_as_admin, _edit_as_member,    _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.RECALL:   (_yes,       _yes,           _yes,           _if_recallable,     _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.SEE:      (_yes,       _yes,           _yes,           _yes,               _if_known,   _if_known,   _NOT_MEMBER),
    GroupOperation.UPDATE:   (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.INVITE:   (_yes,       _yes,           _yes,           _if_members_invite, _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.JOIN:     (_yes,       _no("exists"),  _no("exists"),  _no("exists"),      _if_known,   _if_there,   _if_not_banned),
    GroupOperation.ANSWER:   (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.LEAVE:    (_yes,       _no("is_owner"), _yes,          _yes,               _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.REMOVE:   (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.BAN:      (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.UNBAN:    (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.MUTE:     (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.MUTE_ALL: (_yes,       _yes,           _yes,           _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.SET_ROLE: (_yes,       _yes,           _NOT_ALLOWED,   _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.TRANSFER: (_yes,       _yes,           _NOT_ALLOWED,   _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
    GroupOperation.DISMISS:  (_yes,       _yes,           _NOT_ALLOWED,   _NOT_ALLOWED,       _NOT_MEMBER, _NOT_MEMBER, _NOT_MEMBER),
}  # fmt: skip
_RANKS = {rank: i for i, rank in enumerate(Rank)}

_IN_DISMISSED = frozenset((GroupOperation.READ, GroupOperation.SEE, GroupOperation.LEAVE))
"""The operations that remain in a dismissed group."""

_OUTSIDE = frozenset((Rank.OUTSIDER, Rank.LEFT, Rank.BANNED))
_BELOW = _OUTSIDE | {Rank.MEMBER}
_TOUCHES: Mapping[Rank, frozenset[Rank]] = {
    Rank.SYSTEM: _BELOW | {Rank.ADMIN},
    Rank.OWNER: _BELOW | {Rank.ADMIN},
    Rank.ADMIN: _BELOW,
}


Contacts = Mapping[tuple[str, str], Contact]
"""Contacts by (user, peer). Contacts that are not stored are missing."""


def both_ways(user: str, peers: Iterable[str]) -> list[tuple[str, str]]:
    """The keys of the contacts between a user and some peers, in both directions."""
    return [pair for peer in peers for pair in ((user, peer), (peer, user))]


def relation(user: str, peer: str, contacts: Contacts) -> Relation:
    """The relation between two users."""
    if user == peer:
        return Relation.SELF
    mine, theirs = contacts.get((user, peer)), contacts.get((peer, user))
    if (mine and mine.blocked) or (theirs and theirs.blocked):
        return Relation.BLOCKED
    # The peer decides: they may have removed the user from their contacts.
    return Relation.CONTACT if theirs and theirs.state == "contact" else Relation.STRANGER


def rank(membership: Membership | None, *, is_banned: bool = False, has_left: bool = False) -> Rank:
    """A user's rank in a group. `has_left`: they were a member and left."""
    if membership is not None:
        return Rank(membership.role)
    if is_banned:
        return Rank.BANNED
    return Rank.LEFT if has_left else Rank.OUTSIDER


def between_users(operation: UserOperation, standing: Relation, facts: Facts) -> str | None:
    """None if the operation is allowed, else the error code."""
    return _BETWEEN_USERS[operation][_RELATIONS[standing]](facts)


def lets(profile: Profile, other: str, operation: UserOperation, contacts: Contacts) -> bool:
    """Whether the user of the profile permits another user the operation on them."""
    standing = relation(other, profile.user_id, contacts)
    return between_users(operation, standing, Facts(profile=profile)) is None


def in_group(operation: GroupOperation, standing: Rank, facts: Facts) -> str | None:
    """None if the operation is allowed, else the error code. `facts.group` must be given."""
    ended = facts.group is not None and facts.group.dismissed_at
    if ended and standing not in _OUTSIDE and operation not in _IN_DISMISSED:
        return "dismissed"
    return _IN_GROUPS[operation][_RANKS[standing]](facts)


def may_read(membership: Membership) -> bool:
    """Whether a member may read a group: `in_group` without looking up the group, since every rank of
    member may read, also in a dismissed group."""
    return in_group(GroupOperation.READ, rank(membership), Facts(membership=membership)) is None


def touches(actor: Rank, target: Rank) -> str | None:
    """None if an actor of the one rank may act on a member of the other, else the error code."""
    if target in _TOUCHES.get(actor, ()):
        return None
    return "is_owner" if target is Rank.OWNER else "not_authorized"


_WORDS: Mapping[str, str] = {
    "blocked": "one of the two has blocked the other",
    "not_contact": "they accept this from their contacts only",
    "too_late": "too much time has passed",
    "muted": "muted",
    "not_found": "no such group",
    "not_member": "not a member of this group",
    "not_authorized": "not allowed",
    "exists": "already done",
    "banned": "banned from this group",
    "is_owner": "not possible for the owner: transfer or dismiss the group first",
    "dismissed": "the group was dismissed",
    "invalid_params": "not possible with oneself",
}


def in_words(code: str) -> str:
    """The reason of an error code as text for people."""
    return _WORDS[code]

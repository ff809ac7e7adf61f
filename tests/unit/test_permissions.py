"""The table of permissions, cell by cell, and that topics and operations ask it."""

import pytest
from msgspec.structs import replace

from broker.domain import permissions
from broker.domain.directory import Contact, Group, Membership, Profile
from broker.domain.permissions import Facts, GroupOperation, Rank, Relation, UserOperation

# --- the golden table ----------------------------------------------------------------
#
# A cell is `yes`, the code of a refusal, or a condition: what is refused in which of the cases below.

NOW, RECALL_MS, EDIT_MS = 100_000, 1000, 2000

TIMES = {
    "just recallable": NOW - RECALL_MS,
    "not recallable": NOW - RECALL_MS - 1,
    "just editable": NOW - EDIT_MS,
    "not editable": NOW - EDIT_MS - 1,
}
"""When the message in question was sent."""

WHOSE = {"one's own": True, "another's": False}
"""Whether the actor sent the message in question."""

BOB = Profile("bob", who_may_message="everyone", who_sees_presence="contacts", read_receipts=True)
PROFILES = {
    "plain": BOB,
    "contacts write": replace(BOB, who_may_message="contacts"),
    "contacts add": replace(BOB, who_may_add_me="contacts"),
    "nobody adds": replace(BOB, who_may_add_me="nobody"),
    "contacts write, nobody adds": replace(BOB, who_may_message="contacts", who_may_add_me="nobody"),
    "all see presence": replace(BOB, who_sees_presence="everyone"),
    "nobody sees presence": replace(BOB, who_sees_presence="nobody"),
    "no receipts": replace(BOB, read_receipts=False),
    "no profile": None,
}

TEAM = Group("team", "Team", "owner", 0, 2)
GROUPS = {
    "plain": (TEAM, 0),
    "admins post": (replace(TEAM, who_may_post="admins"), 0),
    "all muted": (replace(TEAM, muted_until=NOW + 1), 0),
    "all muted till now": (replace(TEAM, muted_until=NOW), 0),
    "muted": (TEAM, NOW + 1),
    "muted till now": (TEAM, NOW),
    "muted, and admins post": (replace(TEAM, who_may_post="admins"), NOW + 1),
    "admins invite": (replace(TEAM, who_may_invite="admins"), 0),
    "open": (replace(TEAM, join="open"), 0),
    "closed": (replace(TEAM, join="closed"), 0),
}
"""The group, and until when the actor is muted in it."""

OWN = {"another's": "not_authorized"}
CONDITIONS: dict[str, dict[str, str]] = {
    "own": OWN,
    "recallable": OWN | dict.fromkeys(["not recallable", "just editable", "not editable"], "too_late"),
    "editable": OWN | {"not editable": "too_late"},
    "open_to_all": dict.fromkeys(
        ["contacts write", "contacts write, nobody adds", "no profile"], "not_contact"
    ),
    "contacts_add": dict.fromkeys(
        ["nobody adds", "contacts write, nobody adds", "no profile"], "not_authorized"
    ),
    "all_add": dict.fromkeys(
        ["contacts write", "contacts add", "contacts write, nobody adds", "no profile"], "not_contact"
    )
    | {"nobody adds": "not_authorized"},
    "shows_contacts": dict.fromkeys(["nobody sees presence", "no profile"], "not_authorized"),
    "shows_all": dict.fromkeys(set(PROFILES) - {"all see presence"}, "not_authorized"),
    "gives_receipts": dict.fromkeys(["no receipts", "no profile"], "not_authorized"),
    "not_muted": dict.fromkeys(["muted", "muted, and admins post"], "muted"),
    "may_post": {
        "all muted": "muted",
        "muted": "muted",
        "admins post": "not_authorized",
        "muted, and admins post": "not_authorized",
    },
    "members_invite": {"admins invite": "not_authorized"},
    # The groups that others may not know of.
    "if_known": {"closed": "not_found"},
    "not_member": {case: "not_found" if case == "closed" else "not_member" for case in GROUPS},
    "banned": {case: "not_found" if case == "closed" else "banned" for case in GROUPS},
}
# An edit is a send. The cases of a message come after those of the place, so sending is asked first.
CONDITIONS |= {
    f"{sending},_editable": CONDITIONS[sending] | CONDITIONS["editable"]
    for sending in ("open_to_all", "not_muted", "may_post")
}

USERS = """
operation      system  self            contact         stranger               blocked
MESSAGE        yes     yes             yes             open_to_all            blocked
ADD            yes     yes             contacts_add    all_add                blocked
APPOINT        yes     yes             yes             yes                    blocked
ASK_TO_JOIN    yes     yes             yes             yes                    blocked
MENTION        yes     yes             yes             yes                    blocked
TYPE           yes     yes             yes             open_to_all            blocked
SEE_PRESENCE   yes     yes             shows_contacts  shows_all              blocked
SEE_READ       yes     yes             gives_receipts  gives_receipts         blocked
SEE_DELIVERED  yes     yes             shows_contacts  shows_all              blocked
EDIT           own     editable        editable        open_to_all,_editable  blocked
RECALL         yes     recallable      recallable      recallable             recallable
REQUEST        yes     invalid_params  exists          yes                    blocked
ANSWER         yes     invalid_params  exists          yes                    blocked
REMOVE         yes     invalid_params  yes             yes                    yes
REMARK         yes     invalid_params  yes             yes                    yes
BLOCK          yes     invalid_params  yes             yes                    yes
"""

IN_GROUPS = """
operation      system  owner     admin                member              outsider    left        banned
POST           yes     yes       not_muted            may_post            not_here    not_here    not_here
READ           yes     yes       yes                  yes                 not_member  not_member  not_member
EDIT           own     editable  not_muted,_editable  may_post,_editable  not_member  not_member  not_member
RECALL         yes     yes       yes                  recallable          not_member  not_member  not_member
SEE            yes     yes       yes                  yes                 if_known    if_known    not_member
UPDATE         yes     yes       yes                  not_authorized      not_member  not_member  not_member
INVITE         yes     yes       yes                  members_invite      not_member  not_member  not_member
JOIN           yes     exists    exists               exists              if_known    yes         banned
ANSWER         yes     yes       yes                  not_authorized      not_member  not_member  not_member
LEAVE          yes     is_owner  yes                  yes                 not_member  not_member  not_member
REMOVE         yes     yes       yes                  not_authorized      not_member  not_member  not_member
BAN            yes     yes       yes                  not_authorized      not_member  not_member  not_member
UNBAN          yes     yes       yes                  not_authorized      not_member  not_member  not_member
MUTE           yes     yes       yes                  not_authorized      not_member  not_member  not_member
MUTE_ALL       yes     yes       yes                  not_authorized      not_member  not_member  not_member
SET_ROLE       yes     yes       not_authorized       not_authorized      not_member  not_member  not_member
TRANSFER       yes     yes       not_authorized       not_authorized      not_member  not_member  not_member
DISMISS        yes     yes       not_authorized       not_authorized      not_member  not_member  not_member
"""

# The group was dismissed: these, and for all other operations the last row. Users who are not members are
# answered as if it did not exist.
DISMISSED = """
operation      system     owner      admin      member     outsider    left        banned
READ           yes        yes        yes        yes        not_found   not_found   not_found
SEE            yes        yes        yes        yes        not_found   not_found   not_found
LEAVE          yes        is_owner   yes        yes        not_found   not_found   not_found
POST           dismissed  dismissed  dismissed  dismissed  not_here    not_here    not_here
-              dismissed  dismissed  dismissed  dismissed  not_found   not_found   not_found
"""

# Rows: who does something, columns: to whom.
TOUCHES = """
actor    system         owner    admin          member         outsider       left           banned
SYSTEM   not_authorized is_owner yes            yes            yes            yes            yes
OWNER    not_authorized is_owner yes            yes            yes            yes            yes
ADMIN    not_authorized is_owner not_authorized yes            yes            yes            yes
MEMBER   not_authorized is_owner not_authorized not_authorized not_authorized not_authorized not_authorized
OUTSIDER not_authorized is_owner not_authorized not_authorized not_authorized not_authorized not_authorized
LEFT     not_authorized is_owner not_authorized not_authorized not_authorized not_authorized not_authorized
BANNED   not_authorized is_owner not_authorized not_authorized not_authorized not_authorized not_authorized
"""


def read(table: str) -> dict[str, dict[str, str]]:
    """Operation -> column -> cell."""
    header, *rows = (line.split() for line in table.strip().splitlines())
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


GOLDEN_USERS, GOLDEN_GROUPS, GOLDEN_DISMISSED = read(USERS), read(IN_GROUPS), read(DISMISSED)


def answer(cell: str, *cases: str) -> str | None:
    """What a cell says in a case, which may be made of several."""
    if cell == "not_here":  # whether or not there is such a group
        return "not_member"
    if cell in CONDITIONS:
        return next((CONDITIONS[cell][case] for case in cases if case in CONDITIONS[cell]), None)
    return None if cell == "yes" else cell


def user_answer(operation: UserOperation, relation: Relation, *cases: str) -> str | None:
    return answer(GOLDEN_USERS[operation.name][relation.value], *cases)


def group_answer(operation: GroupOperation, rank: Rank, *cases: str, dismissed: bool = False) -> str | None:
    golden = GOLDEN_GROUPS
    if dismissed:
        golden = {operation.name: GOLDEN_DISMISSED.get(operation.name) or GOLDEN_DISMISSED["-"]}
    return answer(golden[operation.name][rank.value], *cases)


MESSAGES = [((whose, time), own, sent_at) for whose, own in WHOSE.items() for time, sent_at in TIMES.items()]
"""Cases of the message in question: whether it is the actor's own, and when it was sent."""

USER_FACTS = [
    (
        (profile, *cases),
        Facts(NOW, PROFILES[profile], is_sender=own, sent_at=sent_at, recall_ms=RECALL_MS, edit_ms=EDIT_MS),
    )
    for profile in PROFILES
    for cases, own, sent_at in MESSAGES
]


def group_facts(group: Group, muted_until: int, rank: Rank, own: bool, sent_at: int) -> Facts:
    inside = rank in (Rank.OWNER, Rank.ADMIN, Rank.MEMBER)
    membership = Membership("team", "alice", rank.value, 0, muted_until) if inside else None
    return Facts(NOW, None, group, membership, own, sent_at, RECALL_MS, EDIT_MS)


# --- the table is the golden one -----------------------------------------------------


def test_every_operation_has_a_golden_row() -> None:
    """A new operation, relation or rank must be added to these expectations."""
    assert set(GOLDEN_USERS) == {operation.name for operation in UserOperation}
    assert set(GOLDEN_GROUPS) == {operation.name for operation in GroupOperation}
    assert set(GOLDEN_DISMISSED) <= set(GOLDEN_GROUPS) | {"-"}
    for row in GOLDEN_USERS.values():
        assert set(row) == {relation.value for relation in Relation}
    for row in (GOLDEN_GROUPS | GOLDEN_DISMISSED | read(TOUCHES)).values():
        assert set(row) == {rank.value for rank in Rank}
    assert set(read(TOUCHES)) == {rank.name for rank in Rank}


@pytest.mark.parametrize("relation", Relation, ids=lambda it: it.name)
@pytest.mark.parametrize("operation", UserOperation, ids=lambda it: it.name)
def test_between_users(operation: UserOperation, relation: Relation) -> None:
    for cases, facts in USER_FACTS:
        expected = user_answer(operation, relation, *cases)
        assert permissions.between_users(operation, relation, facts) == expected, cases


@pytest.mark.parametrize("dismissed", [False, True], ids=["", "dismissed"])
@pytest.mark.parametrize("rank", Rank, ids=lambda it: it.name)
@pytest.mark.parametrize("operation", GroupOperation, ids=lambda it: it.name)
def test_in_groups(operation: GroupOperation, rank: Rank, dismissed: bool) -> None:
    for case, (group, muted_until) in GROUPS.items():
        for cases, own, sent_at in MESSAGES:
            facts = group_facts(replace(group, dismissed_at=int(dismissed)), muted_until, rank, own, sent_at)
            expected = group_answer(operation, rank, case, *cases, dismissed=dismissed)
            assert permissions.in_group(operation, rank, facts) == expected, (case, cases)


@pytest.mark.parametrize("target", Rank, ids=lambda it: it.name)
@pytest.mark.parametrize("actor", Rank, ids=lambda it: it.name)
def test_whom_a_rank_may_touch(actor: Rank, target: Rank) -> None:
    assert permissions.touches(actor, target) == answer(read(TOUCHES)[actor.name][target.value])


def test_every_refusal_has_words() -> None:
    cells = {cell for table in (USERS, IN_GROUPS, DISMISSED, TOUCHES) for row in read(table).values()
             for cell in row.values()}  # fmt: skip
    codes = {code for cell in CONDITIONS.values() for code in cell.values()}
    for code in codes | cells - set(CONDITIONS) - {"yes", "not_here"}:
        assert permissions.in_words(code)


# --- where somebody stands -----------------------------------------------------------

STATES = (None, "none", "sent", "received", "contact")


@pytest.mark.parametrize("theirs", STATES)
@pytest.mark.parametrize("mine", STATES)
def test_relation(mine: str | None, theirs: str | None) -> None:
    for blocks in ((False, False), (True, False), (False, True)):
        contacts = {}
        sides = [("alice", "bob", mine, blocks[0]), ("bob", "alice", theirs, blocks[1])]
        for user, peer, state, blocked in sides:
            if state is not None:
                contacts[user, peer] = Contact(user, peer, state, blocked=blocked)  # type: ignore[arg-type]
        expected = Relation.CONTACT if theirs == "contact" else Relation.STRANGER
        if any(contact.blocked for contact in contacts.values()):
            expected = Relation.BLOCKED
        assert permissions.relation("alice", "bob", contacts) is expected
        assert permissions.relation("alice", "alice", contacts) is Relation.SELF


def test_rank() -> None:
    for role in ("owner", "admin", "member"):
        membership = Membership("team", "alice", role, 0)
        assert permissions.rank(membership) is Rank(role)
        assert permissions.rank(membership, is_banned=True, has_left=True) is Rank(role)
    assert permissions.rank(None) is Rank.OUTSIDER
    assert permissions.rank(None, has_left=True) is Rank.LEFT
    assert permissions.rank(None, is_banned=True) is Rank.BANNED
    assert permissions.rank(None, is_banned=True, has_left=True) is Rank.BANNED

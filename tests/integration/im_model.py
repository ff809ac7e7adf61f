"""A model in memory of contacts, groups and messages.

Each operation returns its expected result: None, or the error code of its refusal. An accepted operation has
changed the model. Users are names; time does not pass.
"""

from collections import Counter

import msgspec

from tests.integration.im import private


class Message(msgspec.Struct):
    """A message that may be edited or recalled."""

    id: str
    conversation: str
    seq: int
    sender: str
    content: str | None


class Member(msgspec.Struct):
    """A user's membership of a group. The user may not read entries up to `floor`."""

    role: str
    floor: int
    muted: bool = False


class Span(msgspec.Struct):
    """A period of membership: the user may read entries after `floor`, and up to `until` if it has ended."""

    floor: int
    until: int | None = None

    def __contains__(self, offset: int) -> bool:
        return self.floor < offset and (self.until is None or offset <= self.until)


class Group:
    """`heads` counts the entries of all conversations."""

    def __init__(self, group_id: str, owner: str, others: list[str], heads: Counter[str]) -> None:
        self.id = group_id
        self.conversation = f"g:{group_id}"
        self.topic = f"groups/{group_id}"
        self.owner = owner
        self.members: dict[str, Member] = {}
        self.spans: dict[str, list[Span]] = {}
        self.banned: set[str] = set()
        self.requests: set[str] = set()
        self.settings: dict[str, object] = {
            "join": "approval",
            "who_may_invite": "members",
            "who_may_post": "members",
            "history_visible": False,
        }
        self.muted = False
        self.dismissed = False
        self._heads = heads
        for user in {owner, *others}:
            self._take_in(user)
        self.members[owner].role = "owner"
        self._tell()

    @property
    def head(self) -> int:
        return self._heads[self.conversation]

    def _tell(self) -> None:
        self._heads[self.conversation] += 1

    def _take_in(self, user: str) -> None:
        floor = 0 if self.settings["history_visible"] else self.head
        self.members[user] = Member("member", floor)
        self.spans.setdefault(user, []).append(Span(floor))
        self.requests.discard(user)

    def _let_go(self, user: str) -> None:
        del self.members[user]
        self.spans[user][-1].until = self.head

    # --- who may ---------------------------------------------------------------------------

    def role(self, user: str) -> str | None:
        return self.members[user].role if user in self.members else None

    def ended(self, user: str) -> str | None:
        """The code with which a dismissed group refuses a user; None if it is not dismissed."""
        if not self.dismissed:
            return None
        return "dismissed" if user in self.members else "not_member"

    def _led(self, user: str, *leaders: str) -> str | None:
        if self.dismissed or user not in self.members:
            return self.ended(user) or "not_member"
        return None if self.role(user) in leaders else "not_authorized"

    def _touched(self, user: str, target: str) -> str | None:
        match self.role(user), self.role(target):
            case _, "owner":
                return "is_owner"
            case "admin", "admin":
                return "not_authorized"
        return None

    def post(self, user: str) -> str | None:
        if self.dismissed or user not in self.members:
            return self.ended(user) or "not_member"
        role = self.role(user)
        if role == "member" and self.settings["who_may_post"] == "admins":
            return "not_authorized"
        is_muted = role != "owner" and self.members[user].muted
        return "muted" if is_muted or (role == "member" and self.muted) else None

    # --- members ---------------------------------------------------------------------------

    def add(self, by: str, user: str) -> str | None:
        leaders = ["owner", "admin"] + ["member"] * (self.settings["who_may_invite"] == "members")
        code = self._led(by, *leaders)
        if code is None and user not in self.members:
            if user in self.banned:
                return "banned"
            self._take_in(user)
            self._tell()
        return code

    def remove(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin") or self._touched(by, user)
        if code is None and user in self.members:
            self._let_go(user)
            self._tell()
        return code

    def leave(self, user: str) -> str | None:
        if user not in self.members:
            return "not_member"
        if user == self.owner:
            return "is_owner"
        self._let_go(user)
        self._tell()
        return None

    def ban(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin") or self._touched(by, user)
        if code is None:
            self.banned.add(user)
            self.requests.discard(user)
            if user in self.members:
                self._let_go(user)
            self._tell()
        return code

    def unban(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and user not in self.banned:
            code = "not_found"
        if code is None:
            self.banned.discard(user)
            self._tell()
        return code

    def join(self, user: str) -> str | None:
        if self.dismissed:
            return self.ended(user)
        if user in self.members or user in self.banned:
            return "exists" if user in self.members else "banned"
        if self.settings["join"] == "closed":
            return "not_member"
        if self.settings["join"] == "open":
            self._take_in(user)
            self._tell()
        else:
            self.requests.add(user)
        return None

    def accept(self, by: str, user: str) -> str | None:
        code = self.reject(by, user)
        if code is None:
            self._take_in(user)
            self._tell()
        return code

    def reject(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and user not in self.requests:
            code = "not_found"
        if code is None:
            self.requests.discard(user)
        return code

    # --- what they are -----------------------------------------------------------------------

    def mute(self, by: str, user: str | None, muted: bool) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and user is not None:
            code = self._touched(by, user) if user in self.members else "not_found"
        if code is None:
            (self if user is None else self.members[user]).muted = muted
            self._tell()
        return code

    def set_role(self, by: str, user: str, role: str) -> str | None:
        code = self._led(by, "owner")
        if code is None:
            code = self._touched(by, user) if user in self.members else "not_found"
        if code is None and self.role(user) != role:
            self.members[user].role = role
            self._tell()
        return code

    def transfer(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner")
        if code is None and user not in self.members:
            code = "not_found"
        if code is None and user != by:
            self.members[by].role, self.members[user].role = "admin", "owner"
            self.members[user].muted = False
            self.owner = user
            self._tell()
        return code

    def update(self, by: str, name: str, value: object) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and self.settings[name] != value:
            self.settings[name] = value
            self._tell()
        return code

    def dismiss(self, by: str) -> str | None:
        code = self._led(by, "owner")
        if code is None:
            self.dismissed = True
            self._tell()
        return code


class Model:
    """`heads` counts the entries of conversations; `read` is by (user, conversation)."""

    def __init__(self) -> None:
        self.contacts: dict[tuple[str, str], str] = {}
        self.blocks: set[tuple[str, str]] = set()
        self.choosy: set[str] = set()
        """Users who accept messages from contacts only."""
        self.groups: list[Group] = []
        self.messages: list[Message] = []
        self.heads: Counter[str] = Counter()
        self.read: Counter[tuple[str, str]] = Counter()

    def make(self, group_id: str, owner: str, others: list[str]) -> None:
        self.groups.append(Group(group_id, owner, others, self.heads))

    def group_of(self, conversation: str) -> Group | None:
        return next((group for group in self.groups if group.conversation == conversation), None)

    def groups_of(self, user: str) -> list[Group]:
        return [group for group in self.groups if user in group.members]

    def private_of(self, user: str) -> set[str]:
        """The private conversations that have messages."""
        return {where for where, head in self.heads.items() if head and is_between(user, where)}

    # --- messages ----------------------------------------------------------------------------

    def say(self, user: str, peer: str) -> str | None:
        if user == peer:
            return None
        if self._is_blocked(user, peer):
            return "blocked"
        if peer in self.choosy and self.contacts.get((peer, user)) != "contact":
            return "not_contact"
        return None

    def _amend(self, user: str, message: Message) -> str | None:
        """The checks that edit and recall share."""
        if message.content is None:
            return "not_found"
        group = self.group_of(message.conversation)
        if group is None:
            return None if is_between(user, message.conversation) else "not_authorized"
        if user not in group.members:
            return "not_member"
        if message.seq <= group.members[user].floor:
            return "not_found"
        return group.ended(user)

    def _send(self, user: str, conversation: str) -> str | None:
        """Why the user may not send there."""
        if (group := self.group_of(conversation)) is not None:
            return group.post(user)
        one, other = conversation.split(":")[1:]
        return self.say(user, other if user == one else one)

    def edit(self, user: str, message: Message, content: str) -> str | None:
        code = self._amend(user, message) or self._send(user, message.conversation)
        if code is None and message.sender != user:
            code = "not_authorized"
        if code is None:
            message.content = content
            self.heads[message.conversation] += 1
        return code

    def recall(self, user: str, message: Message) -> str | None:
        code = self._amend(user, message)
        group = self.group_of(message.conversation)
        if code is None and message.sender != user and (group is None or group.role(user) == "member"):
            code = "not_authorized"
        if code is None:
            message.content = None
            self.heads[message.conversation] += 1
        return code

    def mark_read(self, user: str, conversation: str, seq: int) -> str | None:
        group = self.group_of(conversation)
        if group is None and not is_between(user, conversation):
            return "not_authorized"
        if group is not None and user not in group.members:
            return "not_member"
        floor = group.members[user].floor if group else 0
        if not floor < seq <= self.heads[conversation]:
            return "not_found"
        self.read[user, conversation] = max(seq, self.read[user, conversation])
        return None

    def _floor(self, user: str, conversation: str) -> int:
        group = self.group_of(conversation)
        return group.members[user].floor if group else 0

    def said(self, conversation: str, upto: float = float("inf")) -> list[Message]:
        """The messages of a conversation, up to a seq."""
        return [each for each in self.messages if each.conversation == conversation and each.seq <= upto]

    def last(self, user: str, conversation: str) -> Message | None:
        """The last message that the user may see."""
        said = self.said(conversation)
        return said[-1] if said and said[-1].seq > self._floor(user, conversation) else None

    def unread(self, user: str, conversation: str) -> int:
        """How many messages came after what the user has read or said last."""
        said = self.said(conversation)
        own = max((each.seq for each in said if each.sender == user), default=0)
        seen = max(own, self.read[user, conversation], self._floor(user, conversation))
        return sum(each.seq > seen for each in said)

    # --- contacts ----------------------------------------------------------------------------

    def _is_blocked(self, user: str, peer: str) -> bool:
        return (user, peer) in self.blocks or (peer, user) in self.blocks

    def _become(self, user: str, mine: str, peer: str, theirs: str) -> None:
        self.contacts[user, peer], self.contacts[peer, user] = mine, theirs

    def request(self, user: str, peer: str) -> str | None:
        state = self.contacts.get((user, peer), "none")
        if self._is_blocked(user, peer):
            return "blocked"
        if state == "contact":
            return "exists"
        if state == "received":
            return self.accept(user, peer)
        if state == "none":
            self._become(user, "sent", peer, "received")
            self.heads[private(user, peer)] += 1
        return None

    def accept(self, user: str, peer: str, after: str = "contact") -> str | None:
        state = self.contacts.get((user, peer), "none")
        if self._is_blocked(user, peer):
            return "blocked"
        if state != "received":
            return "exists" if state == "contact" else "not_found"
        self._become(user, after, peer, after)
        self.heads[private(user, peer)] += 1
        return None

    def reject(self, user: str, peer: str) -> str | None:
        return self.accept(user, peer, "none")

    def remove(self, user: str, peer: str) -> str | None:
        if self.contacts.get((user, peer)) not in ("contact", "sent"):
            return "not_found"
        self._become(user, "none", peer, "none")
        return None

    def block(self, user: str, peer: str) -> None:
        self.blocks.add((user, peer))

    def unblock(self, user: str, peer: str) -> None:
        self.blocks.discard((user, peer))


def is_between(user: str, conversation: str) -> bool:
    """Whether it is a private conversation of the user's."""
    kind, *users = conversation.split(":")
    return kind == "p" and user in users

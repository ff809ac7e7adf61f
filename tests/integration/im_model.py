"""A model in memory of contacts, groups (`im_model_group`) and messages.

Each operation returns its expected result: None, or the error code of its refusal. An accepted operation has
changed the model. Users are names; time does not pass.
"""

from collections import Counter

import msgspec

from tests.integration.im import private
from tests.integration.im_model_group import Group


class Message(msgspec.Struct):
    """A message that may be edited or recalled."""

    id: str
    conversation: str
    seq: int
    sender: str
    content: str | None


class Model:
    """`heads` counts the entries of conversations; `read` is by (user, conversation)."""

    def __init__(self) -> None:
        self.contacts: dict[tuple[str, str], str] = {}
        self.asked: set[tuple[str, str]] = set()
        """Whose request has an entry that the peer has not answered."""
        self.blocks: set[tuple[str, str]] = set()
        self.choosy: set[str] = set()
        """Users who accept messages from contacts only."""
        self.adders: dict[str, str] = {}
        """Who may add a user to groups."""
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
        if self.is_blocked(user, peer):
            return "blocked"
        if peer in self.choosy and self.contacts.get((peer, user)) != "contact":
            return "not_contact"
        return None

    def consent(self, user: str, peer: str) -> str | None:
        """Why the user may not add the other to a group."""
        who, is_contact = self.adders.get(peer, "everyone"), self.contacts.get((peer, user)) == "contact"
        if user == peer:
            return None
        if (code := self.say(user, peer)) is not None:
            return code
        if who == "contacts" and not is_contact:
            return "not_contact"
        return "not_authorized" if who == "nobody" else None

    def _amend(self, user: str, message: Message) -> str | None:
        """The checks that edit and recall share."""
        group = self.group_of(message.conversation)
        if group is None and not is_between(user, message.conversation):
            return "not_found"
        if group is not None and (code := group.entered(user)) is not None:
            return code if message.sender == user else "not_found"
        if message.content is None or (group is not None and message.seq <= group.members[user].floor):
            return "not_found"
        return None if group is None else group.ended(user)

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
        if group is not None and (code := group.entered(user)) is not None:
            return code
        floor = group.members[user].floor if group else 0
        if seq > self.heads[conversation]:
            return "out_of_range"
        if seq <= floor:
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

    def is_blocked(self, user: str, peer: str) -> bool:
        return (user, peer) in self.blocks or (peer, user) in self.blocks

    def _become(self, user: str, mine: str, peer: str, theirs: str) -> None:
        self.contacts[user, peer], self.contacts[peer, user] = mine, theirs

    def request(self, user: str, peer: str) -> str | None:
        state = self.contacts.get((user, peer), "none")
        if self.is_blocked(user, peer):
            return "blocked"
        if state == "contact":
            return "exists"
        if state == "received":
            return self.accept(user, peer)
        if state == "none":
            self._become(user, "sent", peer, "received")
            self.heads[private(user, peer)] += (user, peer) not in self.asked
            self.asked.add((user, peer))
        return None

    def accept(self, user: str, peer: str, after: str = "contact") -> str | None:
        state = self.contacts.get((user, peer), "none")
        if self.is_blocked(user, peer):
            return "blocked"
        if state != "received":
            return "exists" if state == "contact" else "not_found"
        self._become(user, after, peer, after)
        self.asked.discard((peer, user))
        if after == "contact":
            self.asked.discard((user, peer))
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

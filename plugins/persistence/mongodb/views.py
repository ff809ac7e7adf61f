"""What users have seen and marked in conversations."""

from collections.abc import Sequence

import msgspec

from broker.ports import Marked, Seen, Unseen
from plugins.persistence.mongodb.client import Transaction
from plugins.persistence.mongodb.operations import Delete, Document, Operation, Put, Update
from plugins.persistence.mongodb.places import key

ViewChange = Seen | Marked | Unseen


class View(msgspec.Struct):
    """A user's watermarks and marks in a conversation; see `ConversationState`."""

    user: str
    conversation: str
    read: int = 0
    delivered: int = 0
    pinned: bool = False
    muted: bool = False
    unread: bool = False
    hidden: int = 0
    changed_at: int = 0
    floor: int = 0
    """Messages up to it were said to an earlier account with the user's id."""

    def see(self, change: Seen) -> bool:
        """Move the watermarks forward. Returns whether anything has changed."""
        read, delivered = change.read, change.delivered
        if read <= self.read and delivered <= self.delivered and not (self.unread and read > 0):
            return False
        self.read, self.delivered = max(self.read, read), max(self.delivered, delivered)
        self.unread = self.unread and read <= 0
        self.changed_at = change.at
        return True

    def mark(self, change: Marked) -> None:
        """Set the marks that are given."""
        self.pinned = self.pinned if change.pinned is None else change.pinned
        self.muted = self.muted if change.muted is None else change.muted
        self.unread = self.unread if change.unread is None else change.unread
        self.hidden = self.hidden if change.hidden is None else change.hidden
        self.changed_at = change.at


def new_view(user: str, conversation: str) -> Operation:
    """Lists a conversation for a user. It may be listed already, if the user marked it before its first
    message."""
    document = msgspec.structs.asdict(View(user, conversation))
    return Update({"_id": key(user, conversation)}, {"$setOnInsert": document}, upsert=True)


def view_of(document: Document) -> View:
    """The view in a document."""
    return View(**{field: document[field] for field in View.__struct_fields__})


class ViewChanges:
    """Changes of views, made in their order. All that they concern is read at first."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._views: dict[str, View] = {}
        self._changed: set[str] = set()
        self._deleted: set[str] = set()
        self._unseen: list[str] = []

    async def begin(self, changes: Sequence[ViewChange]) -> None:
        """Read the views that are going to change."""
        ids = {key(each.user, each.conversation_id) for each in changes if not isinstance(each, Unseen)}
        for which, document in (await self._transaction.by_ids("conversations", list(ids))).items():
            self._views[which] = view_of(document)
        for user in {each.user for each in changes if isinstance(each, Unseen)}:
            for document in await self._transaction.many("conversations", {"user": user}):
                self._views[document["_id"]] = view_of(document)

    async def make(self, change: ViewChange) -> None:
        """Make one change."""
        match change:
            case Seen(user, conversation_id, _, read, delivered):
                if read > 0 or delivered > 0:
                    which, view = self._view(user, conversation_id)
                    if view.see(change):
                        self._changed.add(which)
            case Marked(user, conversation_id):
                which, view = self._view(user, conversation_id)
                view.mark(change)
                self._changed.add(which)
            case Unseen(user):
                await self._unsee(user)

    def _view(self, user: str, conversation_id: str) -> tuple[str, View]:
        which = key(user, conversation_id)
        self._deleted.discard(which)
        return which, self._views.setdefault(which, View(user, conversation_id))

    async def _unsee(self, user: str) -> None:
        """An id passes to a new account. Group rows stay where the earlier account has sent something, with a
        floor that tells its messages from those of the new one. Private rows stay, so that the conversations
        stay listed, with everything read up to the head: it was said to the earlier account."""
        sent = await self._sent_in(user)
        for conversation in sent:
            self._view(user, conversation)
        own = {which: view for which, view in self._views.items() if view.user == user}
        logs = [view.conversation for view in own.values()]
        heads = await self._transaction.by_ids("heads", logs, ["head"])
        for which, view in own.items():
            name = view.conversation
            if name.startswith("g:") and not view.floor and name not in sent:
                del self._views[which]
                self._changed.discard(which)
                self._deleted.add(which)
                continue
            head = heads.get(name, {}).get("head", 0)
            seen = head if name.startswith("p:") else 0
            self._views[which] = View(user, name, seen, seen, floor=head)
            self._changed.add(which)
        self._unseen.append(user)

    async def _sent_in(self, user: str) -> set[str]:
        """The groups in which a user has sent something."""
        conversation = {"$arrayElemAt": [{"$split": ["$_id", "|"]}, 1]}
        stages = [{"$match": _sent_by(user)}, {"$group": {"_id": conversation}}]
        found = await self._transaction.summed("sent", stages)
        return {document["_id"] for document in found if document["_id"].startswith("g:")}

    def writes(self) -> list[tuple[str, Sequence[Operation]]]:
        """What has changed, to be written."""
        operations: list[Operation] = [Delete({"_id": which}) for which in self._deleted]
        for which in self._changed:
            document = {"_id": which, **msgspec.structs.asdict(self._views[which])}
            operations.append(Put(document))
        sent = [Delete(_sent_by(user)) for user in self._unseen]
        mentions = [Delete({"user": user}) for user in self._unseen]
        return [("conversations", operations), ("sent", sent), ("mentions", mentions)]


def _sent_by(user: str) -> Document:
    """Matches what a user has sent: the keys that begin with the user. "}" is the character after "|"."""
    prefix = key(user, "")
    return {"_id": {"$gte": prefix, "$lt": f"{prefix[:-1]}}}"}}

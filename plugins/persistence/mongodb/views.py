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
        self._unmentioned: list[str] = []

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
        """An id passes to a new account. Group rows go. Private rows stay, so that the conversations stay
        listed, with everything read up to the head: it was said to the earlier account."""
        own = {which: view for which, view in self._views.items() if view.user == user}
        private = [view.conversation for view in own.values() if view.conversation.startswith("p:")]
        heads = await self._transaction.by_ids("heads", private, ["head"])
        for which, view in own.items():
            if view.conversation.startswith("p:"):
                head = heads.get(view.conversation, {}).get("head", 0)
                self._views[which] = View(user, view.conversation, head, head, floor=head)
                self._changed.add(which)
            elif view.conversation.startswith("g:"):
                del self._views[which]
                self._changed.discard(which)
                self._deleted.add(which)
        self._unmentioned.append(user)

    def writes(self) -> list[tuple[str, Sequence[Operation]]]:
        """What has changed, to be written."""
        operations: list[Operation] = [Delete({"_id": which}) for which in self._deleted]
        for which in self._changed:
            document = {"_id": which, **msgspec.structs.asdict(self._views[which])}
            operations.append(Put(document))
        mentions = [Delete({"user": user}) for user in self._unmentioned]
        return [("conversations", operations), ("mentions", mentions)]

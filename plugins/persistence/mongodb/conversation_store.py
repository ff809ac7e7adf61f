"""ConversationStore on MongoDB.

Nothing here asks once for each conversation: what is known of many is read by their keys.
"""

import asyncio
from collections.abc import Mapping, Sequence

from broker.domain.conversation import is_conversation
from broker.domain.topics import inbox_topic
from broker.ports import ConversationState, Watermark
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.operations import Document
from plugins.persistence.mongodb.places import chunks, clamped, key, place, split
from plugins.persistence.mongodb.stored import EVERYBODY
from plugins.persistence.mongodb.views import View, view_of

_HEAD = ("head", "id", "n", "last", "last_id")


class MongoConversationStore:
    """See `broker.ports.ConversationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def private_conversations(self, user: str) -> list[str]:
        of_user = {"user": user, "conversation": {"$gte": "p:", "$lt": "p;"}}
        found = await self._database.many("conversations", of_user, ["conversation"])
        return sorted(document["conversation"] for document in found)

    async def states(
        self, user: str, conversation_ids: Sequence[str], floors: Mapping[str, int] | None = None
    ) -> list[ConversationState]:
        asked = dict.fromkeys(conversation_ids, 0) | dict(floors or {})
        found: dict[str, ConversationState] = {}
        for names in chunks(list(asked)):
            found |= await self._states(user, {name: asked[name] for name in names})
        return [found[name] for name in conversation_ids]

    async def _states(self, user: str, asked: Mapping[str, int]) -> dict[str, ConversationState]:
        heads, sent, views = await asyncio.gather(
            self._database.by_ids("heads", list(filter(is_conversation, asked)), _HEAD),
            self._database.by_ids("sent", [key(user, name, "") for name in asked], ["seq"]),
            self._database.by_ids("conversations", [key(user, name) for name in asked]),
        )
        parts = {
            name: (
                heads.get(name, {}),
                sent.get(key(user, name, ""), {}).get("seq", 0),
                view_of(view) if (view := views.get(key(user, name))) else View(user, name),
            )
            for name in asked
        }
        seen = {
            name: min(head.get("head", 0), max(own, view.read, asked[name]))
            for name, (head, own, view) in parts.items()
        }
        places = [place(name, seq) for name, seq in seen.items() if seq > 0]
        messages = await self._database.by_ids("messages", places, ["n"])
        return {
            name: _state(*part, messages.get(place(name, seen[name]), {}).get("n", 0))
            for name, part in parts.items()
        }

    async def floors(self, user: str) -> dict[str, int | None]:
        found = await self._database.many(
            "conversations", {"user": user, "floor": {"$gt": 0}}, ["conversation", "floor"]
        )
        return {
            document["conversation"]: document["floor"]
            for document in found
            if document["conversation"].startswith("p:")
        }

    async def last_change(self) -> int:
        found = await self._database.many("conversations", {}, ["changed_at"], {"changed_at": -1}, 1)
        return int(found[0]["changed_at"]) if found else 0

    async def watermarks(
        self, conversation_id: str, least_read: int, after: str, limit: int
    ) -> list[Watermark]:
        marks: list[Watermark] = []
        # Most users who have a row have a watermark, so few pages are read in vain.
        while len(marks) < limit:
            later = {"conversation": conversation_id, "user": {"$gt": after}}
            found = await self._database.many(
                "conversations", later, ["user", "read", "delivered"], {"user": 1}, limit
            )
            marks += [
                Watermark(each["user"], each["read"], each["delivered"])
                for each in found
                if each["read"] >= least_read and (each["read"] > 0 or each["delivered"] > 0)
            ]
            if len(found) < limit:
                break
            after = found[-1]["user"]
        return marks[:limit]

    async def watermarks_of(self, users: Mapping[str, str]) -> dict[str, Watermark]:
        asked = {key(user, name): name for name, user in users.items()}
        marks = {}
        for which, document in (await self._database.by_ids("conversations", list(asked))).items():
            view = view_of(document)
            # Watermarks up to the floor are those of an earlier account with the same id.
            read, delivered = (seq if seq > view.floor else 0 for seq in (view.read, view.delivered))
            if read > 0 or delivered > 0:
                marks[asked[which]] = Watermark(view.user, read, delivered)
        return marks

    async def mentions(self, user: str, after: Mapping[str, int]) -> dict[str, int]:
        last: dict[str, int] = {}
        for names in chunks(list(after)):
            for who in {user, EVERYBODY}:
                where = {"user": who, "conversation": {"$in": list(names)}}
                stages = [{"$match": where}, {"$group": {"_id": "$conversation", "seq": {"$max": "$seq"}}}]
                for document in await self._database.summed("mentions", stages):
                    name, seq = document["_id"], document["seq"]
                    if seq > after[name]:
                        last[name] = max(seq, last.get(name, 0))
        return last

    async def arrivals(self, user: str, after: int, upto: int) -> dict[str, int]:
        inbox = inbox_topic(user)
        ends = await self._database.one("heads", inbox, ["head"])
        offsets = range(clamped(after) + 1, min(clamped(upto), ends["head"] if ends else 0) + 1)
        last: dict[str, int] = {}
        for chunk in chunks(offsets):
            entries = await self._database.by_ids("entries", [place(inbox, offset) for offset in chunk])
            for entry in entries.values():
                if not entry.get("own"):
                    conversation, seq = split(entry["message"])
                    last[conversation] = max(seq, last.get(conversation, 0))
        return last


def _state(head: Document, own_seq: int, view: View, seen: int) -> ConversationState:
    return ConversationState(
        view.conversation,
        head_seq=head.get("head", 0),
        own_seq=own_seq,
        read_seq=view.read,
        delivered_seq=view.delivered,
        pinned=view.pinned,
        muted=view.muted,
        unread=view.unread,
        hidden_seq=view.hidden,
        changed_at=view.changed_at,
        head_id=head.get("id", 0),
        last_seq=head.get("last", 0),
        last_id=head.get("last_id", 0),
        messages=head.get("n", 0),
        seen=seen,
        floor_seq=view.floor,
    )

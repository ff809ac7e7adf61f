"""What refers to entries of logs, and entries beyond the ends of their logs."""

from collections.abc import AsyncGenerator, Sequence

from broker.ports import Verified
from plugins.persistence.mongodb.places import split
from plugins.persistence.mongodb.verify.walk import Walk

_WATERMARKS = ("read", "delivered", "floor")


async def check_places(walk: Walk) -> AsyncGenerator[Verified]:
    """No entry is beyond the end of its log."""
    for collection in ("messages", "entries", "events"):
        async for page in walk.pages(collection, ["_id"]):
            places = [split(document["_id"]) for document in page]
            heads = await walk.heads([log for log, _ in places])
            for log, offset in places:
                if not 0 < offset <= heads[log]:
                    walk.found("dangling", f"{log} {offset}", f"the log ends at {heads[log]}")
            yield walk.report()


async def _lost(walk: Walk, places: Sequence[str]) -> set[str]:
    """Those places where there is no message."""
    found = await walk.database.by_ids("messages", list(dict.fromkeys(places)), ["_id"])
    return {where for where in places if where not in found}


async def check_ids(walk: Walk) -> AsyncGenerator[Verified]:
    """Each id is that of a message."""
    async for page in walk.pages("ids"):
        pointers = {document["_id"]: str(document.get("message", "")) for document in page}
        messages = await walk.database.by_ids("messages", list(pointers.values()), ["id"])
        for message_id, where in pointers.items():
            if where not in messages:
                walk.found("dangling", f"id {message_id}", f"there is no such message: {where}")
            elif messages[where]["id"] != message_id:
                detail = f"the message at {where} has the id {messages[where]['id']}"
                walk.found("dangling", f"id {message_id}", detail)
        yield walk.report()


async def check_sent(walk: Walk) -> AsyncGenerator[Verified]:
    """Each `client_msg_id`, and each sender's last message, is one in the conversation."""
    async for page in walk.pages("sent"):
        seqs = {document["_id"]: document["seq"] for document in page}
        conversations = {which: which.split("|")[1] for which in seqs}
        heads = await walk.heads(list(conversations.values()))
        for which, seq in seqs.items():
            conversation = conversations[which]
            if not 0 < seq <= heads[conversation]:
                detail = f"there is no {conversation} {seq}: it ends at {heads[conversation]}"
                walk.found("dangling", f"sent {which}", detail)
        yield walk.report()


async def check_amendments(walk: Walk) -> AsyncGenerator[Verified]:
    """Each has a message that it amends, and is one."""
    async for page in walk.pages("amendments"):
        lost = await _lost(walk, [document[end] for document in page for end in ("target", "message")])
        for document in page:
            for end in ("target", "message"):
                if document[end] in lost:
                    walk.found("dangling", f"amendment {document['_id']}", f"there is no {document[end]}")
        yield walk.report()


async def check_mentions(walk: Walk) -> AsyncGenerator[Verified]:
    """Each is in a message."""
    async for page in walk.pages("mentions", ["user"]):
        places = {document["_id"]: document["_id"].rpartition("/")[0] for document in page}
        lost = await _lost(walk, list(places.values()))
        for document in page:
            if (where := places[document["_id"]]) in lost:
                whom = document["user"] or "all"
                walk.found("dangling", f"mention of {whom}", f"there is no such message: {where}")
        yield walk.report()


async def check_watermarks(walk: Walk) -> AsyncGenerator[Verified]:
    """No watermark is beyond the end of its conversation."""
    async for page in walk.pages("conversations"):
        heads = await walk.heads([document["conversation"] for document in page])
        for document in page:
            conversation = document["conversation"]
            furthest = max(document[field] for field in _WATERMARKS)
            if furthest > heads[conversation]:
                where = f"{document['user']} in {conversation}"
                detail = f"has seen up to {furthest}, and it ends at {heads[conversation]}"
                walk.found("cursor", where, detail)
        yield walk.report()

"""Retained messages, by topic."""

from collections.abc import Iterator

from broker.ports import Held, Retained
from plugins.persistence.mongodb.operations import Delete, Document, Operation, Update
from plugins.persistence.properties import from_column, to_column

_WILDCARDS = ("+", "#")


def operation_of(message: Retained) -> Operation:
    """Keeps a retained message instead of the one before; an empty one removes it."""
    if not message.payload:
        return Delete({"_id": message.topic})
    fields: Document = {
        "payload": message.payload,
        "qos": message.qos,
        "owner": message.owner,
        "size": len(message.topic.encode()) + len(message.payload),
    }
    optional = {"live": message.live or None, "properties": to_column(message.properties)}
    fields |= {name: value for name, value in optional.items() if value is not None}
    # `revision`: which of two is the later one.
    change: Document = {"$set": fields, "$inc": {"revision": 1}}
    if absent := {name: 1 for name, value in optional.items() if value is None}:
        change["$unset"] = absent
    return Update({"_id": message.topic}, change, upsert=True)


def retained_of(document: Document) -> Retained:
    """The message in a document."""
    return Retained(
        document["_id"],
        document["payload"],
        document["qos"],
        True,
        from_column(document.get("properties")),
        document.get("live", False),
        document["owner"],
    )


def held_of(document: Document) -> Held:
    """Whose the message in a document is, and how large."""
    return Held(document["owner"], document["size"])


def ranges_of(topic_filter: str, after: str) -> Iterator[Document]:
    """Queries for the topics after one that a filter with wildcards may match, in their order: the levels
    before the first wildcard, and what is below them."""
    levels: list[str] = []
    for level in topic_filter.split("/"):
        if level in _WILDCARDS:
            break
        levels.append(level)
    if not levels:
        yield {"_id": {"$gt": after}}
        return
    base = "/".join(levels)
    if base > after:
        yield {"_id": base}
    # "0" is the character after "/".
    beyond = {"$gt": after} if after >= f"{base}/" else {"$gte": f"{base}/"}
    yield {"_id": {**beyond, "$lt": f"{base}0"}}

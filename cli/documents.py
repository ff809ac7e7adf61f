"""Converts responses of a node to JSON. Fields keep their names; `bytes` fields hold JSON already."""

from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def encoded(message: Message, **more: Any) -> bytes:
    """A protobuf message as JSON, with `more` members added."""
    return msgspec.json.encode(plain(message) | more)


def plain(message: Message) -> dict[str, Any]:
    """The fields of a protobuf message by name, without `optional` ones that are absent."""
    values: dict[str, Any] = {}
    # Any: descriptors are of classes of protobuf's C extension, which no annotation names.
    fields: Any = message.DESCRIPTOR.fields
    for field in fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            values[field.name] = [_plain(field, each) for each in value]
        elif not field.has_presence or message.HasField(field.name):
            values[field.name] = _plain(field, value)
    return values


def _plain(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return plain(value)
    return msgspec.Raw(value) if field.type == FieldDescriptor.TYPE_BYTES else value

"""Protobuf messages to the parameters of operations, and their results to protobuf messages: fields
go by their names, and `bytes` hold JSON."""

from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from broker.domain.errors import RefusedError

# Descriptors are of classes of protobuf's C extension, which no annotation names.
Descriptor = Any
Field = Any


def to_parameters(message: Message) -> dict[str, Any]:
    """The fields that are given. What cannot be told from nothing (an empty list, and a scalar that is
    not `optional`) is: an empty list is not given, a scalar is.

    Raises:
        RefusedError: `invalid_params`, a field does not hold JSON.
    """
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if is_map(field):
            if value:
                values[field.name] = dict(value)
        elif field.is_repeated:
            if value:
                values[field.name] = [_parameter(field, each) for each in value]
        elif not field.has_presence or message.HasField(field.name):
            values[field.name] = _parameter(field, value)
    return values


def _parameter(field: Field, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_parameters(value)
    if field.type != FieldDescriptor.TYPE_BYTES:
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError("invalid_params", f"{field.name}: not valid JSON: {error}") from None


def to_message(kind: Descriptor, result: msgspec.Struct) -> Message:
    """A result as a message of a kind."""
    values = {}
    for field in kind.fields:
        value = getattr(result, field.name)
        if value is not None:
            values[field.name] = (
                [_result(field, each) for each in value] if field.is_repeated else _result(field, value)
            )
    message: Message = GetMessageClass(kind)(**values)
    return message


def _result(field: Field, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_message(field.message_type, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
    return value


def is_map(field: Field) -> bool:
    """Whether a field is a map."""
    return bool(field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry)

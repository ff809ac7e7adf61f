"""Converts protobuf messages to parameters of operations, and results to protobuf messages. Fields are
matched by name. A `bytes` field stays bytes if the operation's field is `bytes`; else it holds JSON."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from msgspec import inspect as types

from broker.domain.errors import RefusedError

# Descriptors are of classes of protobuf's C extension, which no annotation names.
Descriptor = Any
Field = Any


def to_parameters(message: Message, parameters: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of a request that are given, for an operation with these `parameters`.

    Protobuf cannot tell some fields that are given from absent ones. An empty list or map counts as
    absent; a scalar that is not `optional` counts as given.

    Raises:
        RefusedError: `invalid_params`: a field does not hold JSON, or is unknown to this node.
    """
    # Protobuf keeps fields of later versions and says nothing. A message would be sent without them.
    unknown = UnknownFieldSet(message)
    if len(unknown):
        detail = f"{message.DESCRIPTOR.full_name}: field {unknown[0].field_number} is unknown"
        raise RefusedError("invalid_params", detail)
    values: dict[str, Any] = {}
    wanted = _wanted(parameters)
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if is_map(field):
            if value:
                values[field.name] = dict(value)
        elif field.is_repeated:
            if value:
                values[field.name] = [_parameter(field, each, wanted) for each in value]
        elif not field.has_presence or message.HasField(field.name):
            values[field.name] = _parameter(field, value, wanted)
    return values


def _parameter(field: Field, value: Any, wanted: Mapping[str, type]) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_parameters(value, wanted[field.name])
    if field.type != FieldDescriptor.TYPE_BYTES or wanted.get(field.name) is bytes:
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError("invalid_params", f"{field.name}: not valid JSON: {error}") from None


@cache
def _wanted(parameters: type[msgspec.Struct]) -> Mapping[str, type]:
    """The types of those fields that are `bytes`, structs or lists of structs."""
    fields = msgspec.structs.fields(parameters)
    found = {field.name: _wanted_type(types.type_info(field.type)) for field in fields}
    return {name: kind for name, kind in found.items() if kind is not None}


def _wanted_type(kind: types.Type) -> type | None:
    match kind:
        case types.BytesType():
            return bytes
        case types.StructType(cls):
            return cls
        case types.Metadata(inner) | types.ListType(inner):
            return _wanted_type(inner)
        case types.UnionType(options):
            return next((found for each in options if (found := _wanted_type(each))), None)
    return None


def to_message(kind: Descriptor, result: msgspec.Struct) -> Message:
    """A result as a protobuf message; `kind` is the message's descriptor."""
    values = {}
    for field in kind.fields:
        value = getattr(result, field.name)
        if value is None:
            continue
        if is_map(field):
            values[field.name] = value
        elif field.is_repeated:
            values[field.name] = [_result(field, each) for each in value]
        else:
            values[field.name] = _result(field, value)
    message: Message = GetMessageClass(kind)(**values)
    return message


def _result(field: Field, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_message(field.message_type, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes(value) if isinstance(value, bytes | msgspec.Raw) else msgspec.json.encode(value)
    return value


def is_map(field: Field) -> bool:
    """Whether a field is a map. Protobuf describes maps as repeated messages of key and value."""
    return bool(field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry)

"""The .proto files and the operations agree, in both directions."""

from collections.abc import AsyncIterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from google.protobuf.descriptor import FieldDescriptor

from bridge.administration import admin_operations, administration
from bridge.grpc_api import im_admin_pb2, im_pb2
from bridge.grpc_api.convert import is_map
from bridge.grpc_api.services import ADMINISTRATION, DESCRIPTORS, SERVICES
from bridge.services import offered_operations

STREAMS = {"SyncMessages": ({"limit"}, {"follow", "all_logs"})}
"""Methods whose stream differs from the operation's result: the parameters they lack, and those they add."""

_SCALARS = {
    str: (FieldDescriptor.TYPE_STRING,),
    int: (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32),
    bool: (FieldDescriptor.TYPE_BOOL,),
}


OFFERED = {operation.name: operation for operation in offered_operations()}
ADMIN = {operation.name: operation for operation in admin_operations()}
OPERATIONS = OFFERED | ADMIN
METHODS = [
    (service, method, operation) for service, table in SERVICES.items() for method, operation in table.items()
]


MQTT_ONLY = {"session.renew"}
"""Operations on the MQTT connection that calls."""


def test_every_operation_is_a_method() -> None:
    assert sorted(operation for _, _, operation in METHODS) == sorted(OPERATIONS.keys() - MQTT_ONLY)


def test_the_administration_is_a_table_and_a_service_of_its_own() -> None:
    assert not OFFERED.keys() & ADMIN.keys()
    assert set(SERVICES[ADMINISTRATION].values()) == set(ADMIN)
    nothing: Any = None
    made = administration(*[nothing] * 9)
    assert [operation.name for operation in made] == list(ADMIN)


def test_every_method_is_an_operation() -> None:
    found = {
        service: set(descriptor.methods_by_name)
        for file in (im_pb2, im_admin_pb2)
        for service, descriptor in file.DESCRIPTOR.services_by_name.items()
    }
    assert found == {service: set(table) for service, table in SERVICES.items()}


@pytest.mark.parametrize(("service", "method", "operation"), METHODS)
def test_a_method_has_what_its_operation_has(service: str, method: str, operation: str) -> None:
    descriptor = DESCRIPTORS[service].methods_by_name[method]
    result = OPERATIONS[operation].result
    answers_in_parts = get_origin(result) is AsyncIterator
    assert descriptor.server_streaming == (method in STREAMS or answers_in_parts)
    without, beside = STREAMS.get(method, (set(), set()))
    _compare(descriptor.input_type, OPERATIONS[operation].parameters, without, beside)
    if method not in STREAMS:
        _compare(descriptor.output_type, get_args(result)[0] if answers_in_parts else result)


def _compare(
    message: Any, struct: type, without: set[str] = frozenset(), beside: set[str] = frozenset()
) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    assert set(message.fields_by_name) == (set(fields) - without) | beside, message.full_name
    for name in set(fields) - without:
        _compare_field(message.fields_by_name[name], fields[name])


def _compare_field(field: Any, known: Any) -> None:
    kind = _without_none(known.type)
    if is_map(field):
        assert get_origin(kind) is dict, field.full_name
        return
    if field.is_repeated:
        assert get_origin(kind) is list, field.full_name
        (kind,) = get_args(kind)
    elif _must_have_presence(known, field):
        assert field.has_presence, f"{field.full_name} must be optional"
    _compare_kind(field, _plain(kind))


def _must_have_presence(known: Any, field: Any) -> bool:
    """Whether not given is something else than zero."""
    if known.default is msgspec.NODEFAULT:
        return False
    return bool(known.default != field.default_value)


def _compare_kind(field: Any, kind: Any) -> None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and field.message_type is not None:
        _compare(field.message_type, kind)
    elif kind in _SCALARS:
        assert field.type in _SCALARS[kind], field.full_name
    else:  # bytes, or JSON
        assert field.type == FieldDescriptor.TYPE_BYTES, field.full_name


def _plain(kind: Any) -> Any:
    """A type without its annotations; a choice of strings becomes a string."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if args := get_args(kind):
        return str if all(isinstance(arg, str) for arg in args) else kind
    return kind


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        rest = [arg for arg in get_args(kind) if arg is not type(None)]
        kind = rest[0] if len(rest) == 1 else kind
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    return kind

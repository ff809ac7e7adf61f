"""Requests that an operation must refuse, derived from the types of its parameters."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import inspect as types

_BASIC: dict[type[types.Type], type] = {
    types.StrType: str,
    types.LiteralType: str,
    types.IntType: int,
    types.BoolType: bool,
    types.ListType: list,
    types.DictType: dict,
    types.StructType: dict,
    types.NoneType: type(None),
}
_OTHERS: tuple[Any, ...] = (
    "x",
    "1",
    "true",
    "",
    5,
    0,
    1.0,
    1.5,
    -1e300,
    True,
    False,
    [],
    [1],
    {},
    {"x": 1},
    None,
)
_STRINGS = (
    "",
    " ",
    "a b",
    "a/b",
    "x" * 65,
    "1" * 30,
    "-1",
    "1.5",
    "9" * 19,
    "a\n",
    "1\n",
    "\u0661",
    "é",
    "\0",
)


class Fault(NamedTuple):
    """A request with one fault, and the name that the refusal must mention."""

    request: Any
    named: str


def faults(parameters: type[msgspec.Struct]) -> Iterator[Fault]:
    """Faulty requests: each required field left out, each field of every wrong type and just beyond its
    bounds, and an unknown field. Nested structures likewise."""
    for request, named in _of_struct(_struct(parameters)):
        yield Fault(request, named)


def sample(parameters: type[msgspec.Struct]) -> dict[str, Any]:
    """A well-formed request."""
    return cast("dict[str, Any]", _sample(_struct(parameters)))


def _struct(parameters: type[msgspec.Struct]) -> types.StructType:
    return cast("types.StructType", types.type_info(parameters))


def _sample(kind: types.Type) -> Any:
    match kind:
        case types.Metadata(inner):
            return _sample(inner)
        case types.UnionType(options):
            return _sample(options[0])
        case types.StructType():
            return {field.encode_name: _sample(field.type) for field in kind.fields if field.required}
        case types.ListType(item):
            return [_sample(item)] * (kind.min_length or 0)
        case types.StrType():
            return "1" * (kind.min_length or 1)
        case types.IntType():
            return kind.ge or 0
        case types.LiteralType(values):
            return values[0]
        case types.DictType():
            return {}
    return "x" if isinstance(kind, types.AnyType) else False


def _of_struct(kind: types.StructType) -> Iterator[tuple[Any, str]]:
    good = _sample(kind)
    yield good | {"colour": "red"}, "`colour`"
    for field in kind.fields:
        name = field.encode_name
        if field.required:
            yield {key: value for key, value in good.items() if key != name}, f"`{name}`"
        for value, named in _of(field.type, f".{name}"):
            yield good | {name: value}, named


def _of(kind: types.Type, where: str) -> Iterator[tuple[Any, str]]:
    match kind:
        case types.Metadata(inner):
            yield from _of(inner, where)
            return
        case types.AnyType():
            return
        case types.UnionType(options):
            yield from _of_union(options, where)
            return
    for other in _OTHERS:
        if type(other) is not _BASIC[type(kind)]:
            yield other, where
    match kind:
        case types.StructType():
            yield from _of_struct(kind)
        case types.ListType():
            yield from _of_list(kind, where)
        case types.DictType(_, value):
            yield from (({"users/x/inbox": wrong}, named) for wrong, named in _of(value, where))
        case types.LiteralType(values):
            yield from ((text, where) for text in (*_STRINGS, values[0].upper(), "nonsense"))
        case types.IntType():
            yield from ((number, where) for number in _beyond(kind))
        case types.StrType():
            yield from ((text, where) for text in _unlike(kind))


def _of_union(options: tuple[types.Type, ...], where: str) -> Iterator[tuple[Any, str]]:
    """What is wrong for one option, and of no other's type."""
    plain = [option.type if isinstance(option, types.Metadata) else option for option in options]
    for option in plain:
        if isinstance(option, types.NoneType):
            continue
        others = {_BASIC[type(other)] for other in plain if other is not option}
        yield from ((value, named) for value, named in _of(option, where) if type(value) not in others)


def _of_list(kind: types.ListType, where: str) -> Iterator[tuple[Any, str]]:
    good = _sample(kind.item_type)
    yield from (([wrong], named) for wrong, named in _of(kind.item_type, where))
    yield from (([good, wrong], named) for wrong, named in _of(kind.item_type, where))
    if kind.min_length:
        yield [good] * (kind.min_length - 1), where
    if kind.max_length is not None:
        yield [good] * (kind.max_length + 1), where


def _beyond(kind: types.IntType) -> Iterator[int]:
    assert kind.ge is not None, "an integer without a lower bound"
    most = kind.lt - 1 if kind.lt is not None else kind.le
    assert most is not None, "an integer without an upper bound"
    yield from (int(kind.ge) - 1, int(most) + 1, -(2**31), 2**53, 2**64, -(2**64), 10**30)


def _unlike(kind: types.StrType) -> Iterator[str]:
    if kind.pattern is not None:
        unlike = [text for text in _STRINGS if not re.search(kind.pattern, text)]
        assert len(unlike) > 5, kind.pattern
        yield from unlike
        return
    assert kind.max_length is not None, "a string without an upper bound"
    yield from ("x" * (kind.max_length + 1), "é" * (kind.max_length + 1), "x" * 100_000)
    if kind.min_length:
        yield "x" * (kind.min_length - 1)

"""Write docs/api.md from the types of the operations; `--check` only says whether it is current.

    python -m bridge.api_docs [--check]

Handlers' docstrings say what an operation does, those of parameters and results what they hold;
of a field says so the docstring that follows it, or else its type's `msgspec.Meta`.
"""

import argparse
import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import inspect as types

from bridge.core.operations import Done, Operation
from bridge.grpc_api.errors import describe
from bridge.services import offered_operations
from broker.domain.errors import RefusedError
from broker.domain.message import Body

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "api.md"

_INTRODUCTION = """\
# Operations

Written by `python -m bridge.api_docs` from the code: change it there.

What a client does beside publishing and subscribing ([topics.md](topics.md)). Each operation below
can be called by any user over MQTT.

## Calling over MQTT

Subscribe to `users/<me>/replies`, then publish a JSON object to `users/<me>/rpc/<operation>`: the
operation's parameters and, to tell replies apart, a `request_id` (a string of 1 to 128 characters).
No payload is the same as `{}`.

```
mosquitto_sub -u alice -P wonderland -t users/alice/replies
mosquitto_pub -u alice -P wonderland -t users/alice/rpc/messages.history \\
    -m '{"request_id": "r1", "conversation_id": "p:alice:bob", "limit": 5}'
```

The reply has the request's `request_id`, and either a `result` or an `error`. `code` is for programs
and is one of [these](#errors), `detail` is for people and may be worded differently tomorrow:

```json
{"ok":true,"request_id":"r1","result":{"messages":[]}}
{"ok":false,"request_id":"r1","error":{"code":"not_member","detail":"group team: not a member of this group"}}
```

- A PUBACK says that the call has arrived, the reply what became of it. Replies may come in another
  order than their calls, go to all devices that are subscribed, and are not kept for those that are
  away.
- A request that is no JSON object, or whose `request_id` is no such string, gets a reply without one.
- What is not named below, or is of another type, is refused with `invalid_params`. A parameter with
  a default may be left out; `null` stands for one whose default is `null`.
- Too many calls at once (`limits.rpc_concurrency`) are refused by an event, see
  [topics.md](topics.md#events).

## Calling over gRPC

The `.proto` files are in `bridge/grpc_api/`. Each call carries the metadata
`authorization: Bearer <token>`; on the node's own host the token is in `admin.token` of the data
directory. The standard health and reflection services are there, too. A refusal has the status
[named below](#errors), the `detail` as its details, and the `code` in the trailing metadata
`im-error-code`.

| service | methods |
|---|---|
"""

_CODES = {
    "invalid_params": "A parameter is missing, unknown, of another type, beyond its bounds, or does not "
    "go with the others. `detail` names it",
    "unknown_method": "There is no such operation",
    "not_found": "The user, group, message, conversation or request meant is not there, or was before "
    "your time",
    "not_authorized": "It is somebody else's, or needs another role",
    "not_member": "You are not a member of the group",
    "not_contact": "They take messages of their contacts only",
    "blocked": "One of the two has blocked the other",
    "banned": "The user may not come back to the group",
    "muted": "You may not post in the group for now",
    "is_owner": "Not for the owner of the group: transfer or dismiss it first",
    "dismissed": "The group was dismissed: it can be read, and left",
    "exists": "It is so already: the group is there, you are a contact or a member",
    "too_late": "The message is too old to be edited or recalled (`messages` in the configuration)",
    "quota": "The group would have too many members (`limits.group_members`)",
    "invalid_payload": "A message with a wrong field, as if it had been published",
    "duplicate_conflict": "The `client_msg_id` was used for another message",
    "conflict": "Others were changing the same all the while: try again",
    "unavailable": "A store failed; nothing is known to have happened. Try again later",
    "internal": "A fault of the node's; its log says more",
}

_OTHER_STATUSES = {"unknown_method": "UNIMPLEMENTED", "unavailable": "UNAVAILABLE", "internal": "INTERNAL"}
"""Of what is no refusal of an operation."""

_MESSAGE = """\
## A message

What subscribers and readers get: `type` is the sender's (`text` by default) or `system`, `edit`,
`recall`, which only the server writes. In a log, `offset` is added: it counts the entries of the
topic's log from 1.
"""


def render() -> str:
    """The page."""
    operations = list(offered_operations())
    areas: dict[str, list[Operation]] = {}
    for operation in operations:
        areas.setdefault(operation.name.partition(".")[0], []).append(operation)
    lines = [_INTRODUCTION + "\n".join(_services()), "", "## All operations", "", "| | |", "|---|---|"]
    for area, members in areas.items():
        links = " · ".join(f"[{each.name.partition('.')[2]}](#{_anchor(each.name)})" for each in members)
        lines.append(f"| `{area}.` | {links} |")
    for operation in operations:
        lines += ["", *_describe(operation)]
    lines += ["", _MESSAGE, *_result_table(Body), "", "## Errors", "", *_errors()]
    return "\n".join(lines) + "\n"


def _services() -> Iterator[str]:
    for file in sorted(Path(__file__).with_name("grpc_api").glob("*_pb2.py")):
        descriptor = importlib.import_module(f"bridge.grpc_api.{file.stem}").DESCRIPTOR
        for service in descriptor.services_by_name.values():
            methods = ", ".join(f"`{method.name}`" for method in service.methods)
            yield f"| `{service.full_name}` | {methods} |"


def _errors() -> Iterator[str]:
    yield "| code | why | gRPC status |"
    yield "|---|---|---|"
    for code, why in _CODES.items():
        yield f"| `{code}` | {why} | {_status(code)} |"


def _status(code: str) -> str:
    return _OTHER_STATUSES.get(code) or describe(RefusedError(code, ""), "")[0].name


def _anchor(heading: str) -> str:
    """As GitHub and others make it of a heading."""
    return heading.replace(".", "")


# --- an operation --------------------------------------------------------------------


def _describe(operation: Operation) -> Iterator[str]:
    yield f"## {operation.name}"
    yield ""
    yield _doc(operation.handler)
    yield ""
    info = _struct(operation.parameters)
    if info.fields:
        yield _doc(operation.parameters)
        yield ""
        yield "| parameter | type | default | |"
        yield "|---|---|---|---|"
        yield from _parameters(info, "")
    else:
        yield "No parameters."
    yield ""
    if operation.result is Done:
        yield "Result: `{}`."
    else:
        yield f"Result: {_doc(operation.result)}"
        yield ""
        yield from _result_table(operation.result)


def _parameters(struct: types.StructType, prefix: str) -> Iterator[str]:
    said = _field_docs(struct.cls)
    for field in struct.fields:
        name = f"{prefix}{field.encode_name}"
        about = said.get(field.name) or _description(field.type)
        yield f"| `{name}` | {_words(field.type)} | {_default(field)} | {about} |"
        for path, inner in _nested(field.type, name):
            yield from _parameters(inner, f"{path}.")


def _result_table(struct: type[msgspec.Struct]) -> Iterator[str]:
    yield "| field | type | |"
    yield "|---|---|---|"
    yield from _results(_struct(struct), "")


def _struct(cls: type[msgspec.Struct]) -> types.StructType:
    return cast("types.StructType", types.type_info(cls))


def _results(struct: types.StructType, prefix: str) -> Iterator[str]:
    said = _field_docs(struct.cls)
    may_lack = struct.cls.__struct_config__.omit_defaults
    for field in struct.fields:
        name = f"{prefix}{field.encode_name}"
        words = _words(field.type)
        if may_lack and not field.required:
            words += ", if there is one"
        elif isinstance(field.type, types.UnionType) and field.type.includes_none:
            words += ", or null"
        nested = list(_nested(field.type, name))
        about = (
            said.get(field.name)
            or _description(field.type)
            or " ".join(_doc(inner.cls) for _, inner in nested)
        )
        yield f"| `{name}` | {words} | {about} |"
        for path, inner in nested:
            yield from _results(inner, f"{path}.")


def _default(field: types.Field) -> str:
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(default).decode()}`"


def _nested(kind: types.Type, path: str) -> Iterator[tuple[str, types.StructType]]:
    """The structs in a field, with their paths."""
    match kind:
        case types.Metadata(inner):
            yield from _nested(inner, path)
        case types.ListType(item):
            yield from _nested(item, f"{path}[]")
        case types.UnionType(options):
            for option in options:
                yield from _nested(option, path)
        case types.StructType(cls) if cls is not Body:
            yield path, kind


# --- types in words ------------------------------------------------------------------


def _words(kind: types.Type) -> str:
    match kind:
        case types.Metadata(types.RawType()):  # `operations.Message`
            words = _A_MESSAGE
        case types.Metadata(inner):
            words = _words(inner)
        case types.UnionType(options):
            words = " or ".join(_words(each) for each in options if not isinstance(each, types.NoneType))
        case types.StrType():
            words = _string(kind)
        case types.IntType():
            words = _integer(kind)
        case types.ListType(item):
            span = _span(kind.min_length, kind.max_length)
            words = f"list ({span}) of {_words(item)}" if span else f"list of {_words(item)}"
        case types.DictType(key, value):
            words = f"object: {_words(key)} to {_words(value)}"
        case types.LiteralType(values):
            words = " or ".join(f'`"{value}"`' for value in values)
        case types.StructType(cls):
            words = _A_MESSAGE if cls is Body else "object"
        case _:
            words = _PLAIN[type(kind)]
    return words


_A_MESSAGE = "[message](#a-message)"
_PLAIN: dict[type[types.Type], str] = {
    types.BoolType: "boolean",
    types.AnyType: "any JSON",
    types.RawType: "any JSON",
}


def _string(kind: types.StrType) -> str:
    if kind.pattern is not None:
        pattern = kind.pattern.removeprefix("^").removesuffix(r"\Z").replace("|", r"\|")
        return f"string like `{pattern}`"
    span = _span(kind.min_length, kind.max_length)
    return f"string of {span} characters" if span else "string"


def _integer(kind: types.IntType) -> str:
    most = kind.lt - 1 if kind.lt is not None else kind.le
    span = _span(kind.ge, most)
    return f"integer, {span}" if span else "integer"


def _span(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f"at most {_figure(most)}"
    return f"{_figure(least)} to {_figure(most)}" if most is not None else f"at least {_figure(least)}"


def _figure(number: float) -> str:
    return f"{number:,}" if number < 2**31 else f"2^{int(number).bit_length()} - 1"


def _description(kind: types.Type) -> str:
    """What `msgspec.Meta` says of a field, or of what it is a list of."""
    match kind:
        case types.Metadata(inner, extra_json_schema):
            said = (extra_json_schema or {}).get("description", "") or _description(inner)
            return str(said)
        case types.UnionType(options):
            return next((said for option in options if (said := _description(option))), "")
        case types.ListType(item):
            return _description(item)
    return ""


def _field_docs(cls: type) -> dict[str, str]:
    """The docstrings that follow fields in the source."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    body = cast("ast.ClassDef", definition).body
    return {
        field.target.id: " ".join(text.split())
        for field, following in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(text := following.value.value, str)
    }


def _doc(documented: Any) -> str:
    """A docstring on one line, with a full stop."""
    text = " ".join(inspect.cleandoc(documented.__doc__ or "").split())
    return text if text.endswith((".", ":")) else f"{text}."


def main() -> int:
    """Returns the exit status."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bridge.api_docs", description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    check = parser.parse_args().check
    page = render()
    if not check:
        OUTPUT.write_text(page, encoding="utf-8")
    elif not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != page:
        print(f"stale: {OUTPUT.relative_to(ROOT)} (run: python -m bridge.api_docs)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write docs/api.md from the code of the operations; `--check` only tells whether the page is current.

    python -m bridge.api_docs [--check]

The page begins with `api_introduction.md`; all else comes from docstrings. A handler's docstring describes
its operation, a struct's docstring describes the parameters or the result. A field is described by the
docstring that follows it, or else by the `msgspec.Meta` of its type.
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
INTRODUCTION = Path(__file__).with_name("api_introduction.md")

_CODES = {
    "invalid_params": "A parameter is missing, unknown, of the wrong type or out of bounds, or two "
    "parameters exclude each other. `detail` names the parameter",
    "unknown_method": "There is no such operation",
    "not_found": "The user, group, message, conversation or request does not exist, or the caller may not "
    "see it because it is older than their membership or account, or may not know of the group because it is "
    "closed or was dismissed",
    "unauthenticated": "The token is missing or not valid",
    "not_authorized": "It belongs to somebody else, or the caller's role does not allow it",
    "not_member": "The caller is not a member of the group",
    "not_contact": "The user accepts this from contacts only: messages, texts, or being added to groups",
    "blocked": "One of the two users has blocked the other",
    "has_left": "The user has left the group. They come back only by joining themselves",
    "banned": "The user is banned from the group",
    "muted": "The caller may not post in the group for now",
    "is_owner": "Not possible by or for the owner of the group. Transfer or dismiss the group first",
    "dismissed": "The group was dismissed. Its members can only read it and leave it",
    "exists": "The group id is taken, or the two users are contacts already, or the caller is a member "
    "already",
    "too_late": "The message is too old to be edited or recalled (`messages` in the configuration)",
    "quota": "The group would have too many members (`limits.group_members`), or the caller has done this "
    "too often within the hour (`limits.groups_per_hour`, `limits.contact_requests_per_hour`, "
    "`limits.joins_per_hour`, `limits.repeats_per_hour`)",
    "invalid_payload": "The message has an invalid field; see [What to publish](topics.md#what-to-publish)",
    "duplicate_conflict": "The sender has used the `client_msg_id` for a message with other content",
    "out_of_range": "A cursor or seq is beyond the end of its log, or of another `generation`: the node was "
    "restored from a backup. The error also has `head`, the last offset or seq, and `generation`; that of "
    "`messages.sync` has the `topic`, and `heads`, all such topics with theirs. Drop what the device has "
    "after these and go on from there",
    "conflict": "Other calls kept changing the same data. Nothing was changed. Try again",
    "unavailable": "A store failed, so it is unknown whether the call took effect. Try again later",
    "internal": "A bug in the node. Its log has the details",
}

_OTHER_STATUSES = {"unknown_method": "UNIMPLEMENTED", "unavailable": "UNAVAILABLE", "internal": "INTERNAL"}
"""gRPC statuses of failures that are not refusals by an operation."""

_MESSAGE = """\
## A message

The JSON object that subscribers receive and that the operations above return. The sender chooses the
`type` (`text` by default); only the server writes entries of the types `system`, `edit` and `recall`. A
message read from a log also has its `offset` there.
"""


def render() -> str:
    """The page."""
    operations = list(offered_operations())
    areas: dict[str, list[Operation]] = {}
    for operation in operations:
        areas.setdefault(operation.name.partition(".")[0], []).append(operation)
    lines = [
        INTRODUCTION.read_text(encoding="utf-8") + "\n".join(_services()),
        "",
        "## All operations",
        "",
        "| | |",
        "|---|---|",
    ]
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
    """The anchor of a heading, made the way GitHub makes it."""
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
    """The structs in a field, each with its path: `results[]`, `results[].sent`."""
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
    """The description in the `msgspec.Meta` of a field's type, or of the type of its items."""
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
    """The docstrings that follow the fields of a class, by field."""
    # Python keeps no docstrings of attributes: only the source has them.
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
    """Run the command. Returns the exit status: 1 if `--check` found the page stale."""
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

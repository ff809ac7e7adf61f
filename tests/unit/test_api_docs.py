"""docs/api.md agrees with the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

from bridge import api_docs
from bridge.services import offered_operations
from broker.domain import permissions

PAGE = api_docs.OUTPUT.read_text()
BRIDGE = Path(api_docs.__file__).parent
REFUSING = [
    *(file for room in ("core", "handlers", "mqtt_api") for file in (BRIDGE / room).glob("*.py")),
    BRIDGE.parent / "broker" / "publish" / "references.py",
]
"""The modules that refuse operations; the administration has a room of its own, and codes."""

FAILURES = {"RefusedError", "Failure", "_failure"}
"""What takes an error's code first."""


def codes_of(file: Path) -> Iterator[str]:
    """The error codes a module spells out."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Call(ast.Name(name), [ast.Constant(str(code)), *_]) if name in FAILURES:
                yield code


def test_it_is_current() -> None:
    assert api_docs.render() == PAGE


def test_it_has_all_operations() -> None:
    for operation in offered_operations():
        assert f"\n## {operation.name}\n" in PAGE
        assert operation.summary


def test_it_explains_all_error_codes() -> None:
    codes = {code for file in REFUSING for code in codes_of(file)}
    assert {"unknown_method", "invalid_params", "not_found", "internal"} <= codes
    for code in codes | set(permissions._WORDS):
        assert f"\n| `{code}` |" in PAGE

"""Check that only an object's own methods assign its attributes: nothing is tied after construction.

    python scripts/check_assignments.py FOLDER...

Reads the syntax trees of all modules below the folders. Prints each assignment to an attribute of
anything but `self`, in any form: `=`, `+=`, with an annotation, as the target of `for`, `with`, `:=` or
`del`, through `setattr` or `__setattr__`. Exit status: 0 if there is none, 1 if there is one or if the
folders hold no modules.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

_GENERATED = ("_pb2.py", "_pb2_grpc.py")
_BY_NAME = frozenset(("setattr", "delattr", "__setattr__", "__delattr__"))


def assignments(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that assign an attribute of anything but `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name("self"), _, ast.Store() | ast.Del()):
                pass
            case ast.Attribute(_, _, ast.Store() | ast.Del()):
                yield node
            case ast.Call(ast.Name(name) | ast.Attribute(_, name)) if name in _BY_NAME:
                yield node


def main() -> int:
    """Check the folders named by the arguments; returns the exit status."""
    files = [file for folder in sys.argv[1:] for file in sorted(Path(folder).rglob("*.py"))]
    found = 0
    for file in files:
        if not file.name.endswith(_GENERATED):
            for node in assignments(ast.parse(file.read_text(encoding="utf-8"))):
                print(f"{file}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)} is assigned from outside")
                found += 1
    if not files:
        print("no files to check", file=sys.stderr)
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())

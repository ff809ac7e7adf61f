"""Check that only an object's own methods assign its attributes: nothing is tied after construction.

    python scripts/check_assignments.py FOLDER...

Reads the syntax trees of all modules below the folders and prints each assignment to an attribute of
anything but the `self` of a method, in whatever form: `=`, `+=`, with an annotation, as the target of
`for`, `with` or `del`, through `setattr` and its like, or through `__dict__`. Exits with 1 if there is one.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

_GENERATED = ("_pb2.py", "_pb2_grpc.py")
_BY_NAME = frozenset(
    ("setattr", "delattr", "__setattr__", "__delattr__", "force_setattr", "vars", "__dict__")
)


def assignments(tree: ast.AST) -> Iterator[ast.AST]:
    """The places that assign an attribute of another object."""
    own = {id(node) for method in _methods(tree) for node in ast.walk(method) if _is_of_self(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(_, name, ctx) if not isinstance(ctx, ast.Load) and id(node) not in own:
                yield node
            case ast.Name(name) | ast.Attribute(_, name) if name in _BY_NAME:
                yield node


def _methods(tree: ast.AST) -> Iterator[ast.AST]:
    """Functions whose first parameter is the `self` of the class they stand in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for function in node.body:
                match function:
                    case ast.FunctionDef(args=arguments) | ast.AsyncFunctionDef(args=arguments):
                        first = [*arguments.posonlyargs, *arguments.args][:1]
                        if [argument.arg for argument in first] == ["self"]:
                            yield function


def _is_of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


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

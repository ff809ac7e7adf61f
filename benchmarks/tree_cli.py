"""`python -m cli` of one tree of Parley: ``python -P benchmarks/tree_cli.py TREE ARGUMENT...``.

The tree comes first on the import path. Another tree may be installed in the same environment, so the
process checks the origin of its modules. It exits with status 1 if they belong to another tree.
"""

import importlib
import runpy
import sys
from pathlib import Path


def require(package: str, tree: Path) -> None:
    """Import `package`. SystemExit unless it is part of `tree`."""
    origin = importlib.import_module(package).__file__
    if origin is None or not Path(origin).resolve().is_relative_to(tree):
        sys.exit(f"wrong tree: {package} is imported from {origin}, not from {tree}")


def main() -> None:
    """Run the cli of the tree named by the first argument, with the other arguments."""
    tree = Path(sys.argv.pop(1)).resolve()
    sys.path.insert(0, str(tree))
    require("broker", tree)
    require("cli", tree)
    runpy.run_module("cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

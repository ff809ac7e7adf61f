"""Write the modules protoc makes of the .proto files; `--check` only says whether they are current.

    python -m bridge.grpc_api.generate [--check]

The repository's root is the include root, so that generated modules import each other as
`bridge.grpc_api.…`. Needs the package grpcio-tools, which a node does not.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
OUTPUTS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


class GenerationError(Exception):
    """protoc did not accept the .proto files; it has said why."""


def generate(out: Path) -> list[Path]:
    """Generate below `out`; returns the files, relative to it and to the root alike.

    Raises:
        GenerationError: protoc refused.
    """
    protos = sorted(FOLDER.glob("*.proto"))
    arguments = [f"--{kind}={out}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    protoc = (sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}")
    command = (*protoc, *arguments, *map(str, protos))
    if subprocess.run(command, check=False).returncode != 0:  # noqa: S603 - our own files
        raise GenerationError
    relative = FOLDER.relative_to(ROOT)
    return [relative / (proto.stem + suffix) for proto in protos for suffix in OUTPUTS]


def stale() -> list[Path]:
    """The generated files that are not what they should be, relative to the root."""
    with tempfile.TemporaryDirectory() as folder:
        files = generate(Path(folder))
        return [file for file in files if _read(ROOT / file) != _read(Path(folder, file))]


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def main() -> int:
    """Returns the exit status."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bridge.grpc_api.generate", description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    check = parser.parse_args().check
    try:
        if not check:
            generate(ROOT)
        elif files := stale():
            names = ", ".join(map(str, files))
            print(f"stale: {names} (run: python -m bridge.grpc_api.generate)", file=sys.stderr)
            return 1
    except GenerationError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

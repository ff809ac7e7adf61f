"""Generate Python modules from the .proto files; `--check` only tells whether they are current.

    python -m bridge.grpc_api.generate [--check]

protoc's include root is the root of the repository, so that generated modules import each other as
`bridge.grpc_api.…`. This needs the package grpcio-tools; a node does not.
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
    """protoc failed. It has printed the reason on standard error."""


def generate(out: Path) -> list[Path]:
    """Generate the modules below `out`. Returns their paths, relative to `out` and to the repository's root
    alike.

    Raises:
        GenerationError: protoc failed.
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
    """The generated files that are missing or out of date, relative to the repository's root."""
    with tempfile.TemporaryDirectory() as folder:
        files = generate(Path(folder))
        return [file for file in files if _read(ROOT / file) != _read(Path(folder, file))]


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def main() -> int:
    """Run the command. Returns the exit status: 1 if protoc failed or `--check` found a stale file."""
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

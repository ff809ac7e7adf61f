"""The trees of Parley under measurement: the working tree, and that of a git revision."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .loadgen import BenchmarkError

ROOT = Path(__file__).resolve().parent.parent
GIT_SECONDS = 60.0
COMPILE_SECONDS = 120.0


class RevisionError(BenchmarkError):
    """A revision that cannot be had; the text is one line for whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of Parley's source: its directory, and what the report calls it."""

    root: Path
    label: str

    def compile(self) -> None:
        """Write the bytecode of all packages, so that no node compiles while it starts.

        A node that has compiled its modules itself is larger than one that has loaded them, and a
        tree fresh out of git has no bytecode where the working tree usually has all of it.
        """
        packages = sorted(str(each.parent) for each in self.root.glob("*/__init__.py"))
        command = [sys.executable, "-m", "compileall", "-qq", *packages]
        # What cannot be compiled is told by the node that needs it.
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, check=False, timeout=COMPILE_SECONDS)


WORKING_TREE = Tree(ROOT, "working tree")


def unpack(revision: str, directory: Path, checkout: Path = ROOT) -> Tree:
    """The tree of git revision `revision` of `checkout`, written to the new `directory`.

    RevisionError if there is no such revision, or if `checkout` is none. It is an archive and not a
    worktree of git's: the repository knows nothing of it, so nothing has to be cleaned up there,
    however the benchmark ends.
    """
    git = ("git", "-C", str(checkout))
    _require_repository(checkout)
    try:
        names_commit = ("--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        commit = _output(*git, "rev-parse", *names_commit)
    except RevisionError:
        raise RevisionError(f"unknown revision: {revision}") from None
    archive = directory.with_suffix(".tar")
    _output(*git, "archive", "--format=tar", f"--output={archive}", commit)
    directory.mkdir()
    _output("tar", "--extract", f"--file={archive}", f"--directory={directory}")
    archive.unlink()
    return Tree(directory, _output(*git, "rev-parse", "--short", commit))


def _require_repository(checkout: Path) -> None:
    """An unpacked release inside somebody's repository has that one's revisions, not its own."""
    try:
        top = _output("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    except RevisionError as error:
        raise RevisionError(f"{checkout} is not a git checkout ({error})") from None
    if Path(top).resolve() != checkout.resolve():
        raise RevisionError(f"{checkout} is not a git checkout (it is a part of that at {top})")


def _output(program: str, *arguments: str) -> str:
    """What `program` writes to standard output; RevisionError with its first complaint."""
    try:
        done = subprocess.run(
            [program, *arguments], check=False, capture_output=True, text=True, timeout=GIT_SECONDS
        )
    except FileNotFoundError:
        raise RevisionError(f"{program} is not installed") from None
    except subprocess.TimeoutExpired:
        raise RevisionError(f"{program} took longer than {GIT_SECONDS:.0f} s") from None
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"{program} failed"]
        raise RevisionError(complaint[0])
    return done.stdout.strip()

"""The measured trees of Parley: the working tree, and the tree of a git revision."""

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
    """A revision is not available. The text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A source tree of Parley: its directory, and its label in the report."""

    root: Path
    label: str

    def compile(self) -> None:
        """Write the bytecode of all packages, so that no node compiles while it starts.

        A node that compiles its modules itself is larger than one that loads them. A tree fresh from git has
        no bytecode, while the working tree usually has all of it.
        """
        packages = sorted(str(each.parent) for each in self.root.glob("*/__init__.py"))
        command = [sys.executable, "-m", "compileall", "-qq", *packages]
        # An error in a module is reported by the node that imports it.
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, check=False, timeout=COMPILE_SECONDS)


WORKING_TREE = Tree(ROOT, "working tree")


def unpack(revision: str, directory: Path, checkout: Path = ROOT) -> Tree:
    """Write the tree of git revision `revision` of `checkout` to the new `directory`.

    The tree is an archive, not a git worktree. The repository has no record of it, so nothing has to be
    cleaned up there, however the benchmark ends.

    Raises:
        RevisionError: there is no such revision, or `checkout` is not a git checkout.
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
    """Raise RevisionError unless `checkout` is the top of a git repository. A release unpacked inside
    another repository would yield revisions of that one."""
    try:
        top = _output("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    except RevisionError as error:
        raise RevisionError(f"{checkout} is not a git checkout ({error})") from None
    if Path(top).resolve() != checkout.resolve():
        raise RevisionError(f"{checkout} is not a git checkout (it is part of the one at {top})")


def _output(program: str, *arguments: str) -> str:
    """The standard output of a program. RevisionError with its first line of standard error if it fails."""
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

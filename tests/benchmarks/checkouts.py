"""Git checkouts for tests, made of this tree: whether it is a checkout itself does not matter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHES = shutil.ignore_patterns("__pycache__")
AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
SECONDS = 100


def git(directory: Path, *arguments: str) -> str:
    """Run git in `directory` and return what it prints."""
    command = ["git", "-C", str(directory), *AUTHOR, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def commit_all(directory: Path) -> str:
    """Commit everything in `directory` and return the short hash; a new repository if need be."""
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", "a tree")
    return git(directory, "rev-parse", "--short", "HEAD").strip()


def copy_of_this_tree(directory: Path) -> Path:
    """The code, configuration and benchmark of this tree in the new `directory`."""
    packages = {file.parent for file in ROOT.glob("*/__init__.py")} - {ROOT / "tests"}
    for part in (*packages, ROOT / "config"):
        shutil.copytree(part, directory / part.name, ignore=CACHES)
    shutil.copy(ROOT / ".gitignore", directory)
    return directory


def start_benchmark(tree: Path, temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python -m benchmarks` of `tree`, which makes its temporary files in `temporary`."""
    temporary.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_benchmark(tree: Path, temporary: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit status of such a run, what it printed and what it complained of."""
    process = start_benchmark(tree, temporary, *arguments)
    try:
        output, complaints = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, output, complaints

"""The trees that are compared, and that a node is made of the right one's modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.brokers import TREE_CLI, Parley, StartError
from benchmarks.rounds import Plan
from benchmarks.trees import ROOT, WORKING_TREE, RevisionError, Tree, unpack
from benchmarks.workloads import Effort, Workload, measure_idle
from tests.benchmarks.checkouts import commit_all, copy_of_this_tree, git


def test_a_tree_is_that_of_its_revision(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "text").write_text("first")
    (checkout / "link").symlink_to("/nowhere/at/all")
    first = commit_all(checkout)
    (checkout / "text").write_text("second")
    commit_all(checkout)
    (checkout / "text").write_text("not committed")

    tree = unpack("HEAD~1", tmp_path / "tree", checkout)

    assert tree == Tree(tmp_path / "tree", first)
    assert (tree.root / "text").read_text() == "first"
    assert (tree.root / "link").is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkout", "tree"]
    assert git(checkout, "status", "--porcelain") == " M text\n"
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


def test_an_unknown_revision(tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    commit_all(tmp_path)
    with pytest.raises(RevisionError, match=r"^unknown revision: nothing$"):
        unpack("nothing", tmp_path / "tree", tmp_path)
    assert not (tmp_path / "tree").exists()


def test_a_directory_inside_another_repository_is_no_checkout(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "text").touch()
    commit_all(tmp_path)
    with pytest.raises(RevisionError, match=r"inside is not a git checkout \(it is part of"):
        unpack("HEAD", tmp_path / "tree", inside)


def test_compiling_writes_the_bytecode_of_packages(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "broken.py").write_text("def")
    Tree(tmp_path, "x").compile()
    (compiled,) = (tmp_path / "package" / "__pycache__").iterdir()
    assert compiled.name.startswith("__init__.")


def test_the_cli_is_that_of_the_tree(tmp_path: Path) -> None:
    other = copy_of_this_tree(tmp_path / "other")
    module = other / "broker" / "__init__.py"
    module.write_text(module.read_text() + '\nVERSION = "9.8.7"\n')
    (tmp_path / "home").mkdir()

    theirs = Parley(tmp_path / "home" / "theirs", Tree(other, "abc"))
    ours = Parley(tmp_path / "home" / "ours")

    assert (theirs.name, theirs.version()) == ("parley@abc", "abc")
    assert theirs.cli("--version") == "imctl 9.8.7\n"
    assert (ours.name, ours.version()) == ("parley", WORKING_TREE.label)
    assert ours.cli("--version") != "imctl 9.8.7\n"


def test_modules_of_another_tree_end_the_process(tmp_path: Path) -> None:
    """The tree has no `broker`, so that of the tree that is installed, or on the path, is found."""
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").touch()
    (tmp_path / "cli" / "__main__.py").write_text("print('started')")
    done = subprocess.run(
        [sys.executable, "-P", str(TREE_CLI), str(tmp_path), "serve"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"wrong tree: broker is imported from {ROOT}/broker/__init__.py, not from {tmp_path.resolve()}\n"
    )


def test_a_node_of_the_wrong_tree_does_not_count_as_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tree" / "config").mkdir(parents=True)
    (tmp_path / "tree" / "config" / "broker.yaml").touch()
    broker = Parley(tmp_path / "home", Tree(tmp_path / "tree", "abc"))
    with pytest.raises(StartError, match=r"^did not start: wrong tree: broker"), broker.start():
        pass


def test_the_order_of_the_trees_alternates(tmp_path: Path) -> None:
    ours = Parley(tmp_path / "ours")
    theirs = Parley(tmp_path / "theirs", Tree(tmp_path, "abc"))
    workloads = [Workload(name, name, measure_idle) for name in ("first", "second")]
    plan = Plan([ours, theirs], workloads, 4, Effort(1, 1, 1), 1)
    order = [
        [(workload.name, broker) for workload, broker in plan.pairings(number)]
        for number in range(plan.rounds)
    ]
    forth = [("first", ours), ("first", theirs), ("second", ours), ("second", theirs)]
    back = [("first", theirs), ("first", ours), ("second", theirs), ("second", ours)]
    assert order == [forth, back, forth, back]

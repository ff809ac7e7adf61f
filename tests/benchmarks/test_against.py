"""`python -m benchmarks --against REV`, run as a command in a checkout of its own."""

import json
import signal
from pathlib import Path

import pytest

from tests.benchmarks.checkouts import (
    SECONDS,
    commit_all,
    copy_of_this_tree,
    git,
    run_benchmark,
    start_benchmark,
)
from tests.integration.node import wait_for

ONE_ROUND = ("--against", "HEAD", "--quick", "--rounds", "1", "--workload", "connect", "--only", "parley")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this tree with all of it committed."""
    tree = copy_of_this_tree(tmp_path / "checkout")
    commit_all(tree)
    return tree


def processes_that_name(text: str) -> list[str]:
    """The command lines, of all processes, with `text` in them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def test_head_against_itself(checkout: Path, tmp_path: Path) -> None:
    head = git(checkout, "rev-parse", "--short", "HEAD").strip()
    file = tmp_path / "samples.json"
    status, output, complaints = run_benchmark(checkout, tmp_path / "tmp", *ONE_ROUND, "--json", str(file))

    assert f"comparing the working tree with {head}: 1 round of 2 measurements, about" in complaints
    assert "connects" in output
    assert f" {head} " in output
    document = json.loads(file.read_text())
    assert document["against"] == head
    assert document["versions"] == {"parley": "working tree", f"parley@{head}": head}
    assert [each["broker"] for each in document["results"]] == ["parley", f"parley@{head}"]
    assert [len(each["samples"]) for each in document["results"]] == [1, 1]
    cpu, rate = document["comparisons"]
    assert (cpu["figure"], rate["figure"]) == ("cpu_us", "rate")
    assert cpu["working_tree"] == [document["results"][0]["samples"][0]["cpu_us"]]
    assert cpu["other"] == [document["results"][1]["samples"][0]["cpu_us"]]
    assert cpu["ratios"] == [cpu["working_tree"][0] / cpu["other"][0]]
    # One round is measured without fault, but shows no spread: nothing is known to be not slower.
    assert status == 1
    assert cpu["verdict"] == "unknown"
    assert "one round has no spread" in output

    assert git(checkout, "status", "--porcelain") == ""
    assert len(git(checkout, "worktree", "list").splitlines()) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_each_tree_has_its_own_configuration(checkout: Path, tmp_path: Path) -> None:
    config = checkout / "config" / "broker.yaml"
    good = config.read_text()
    config.write_text("no_such_key: 1\n")
    head = commit_all(checkout)
    config.write_text(good)

    status, output, complaints = run_benchmark(checkout, tmp_path / "tmp", *ONE_ROUND)

    # The working tree's node comes first, and has come up.
    assert status == 1
    assert output == ""
    last = complaints.splitlines()[-1]
    assert last.startswith(f"python -m benchmarks: parley@{head}: did not start: ")
    assert "no_such_key" in last
    assert list((tmp_path / "tmp").iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(checkout: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    process = start_benchmark(checkout, temporary, *ONE_ROUND)
    try:
        wait_for(lambda: processes_that_name(f"--data-dir {temporary}/parley-bench-"), "a node")
        process.send_signal(signal.SIGINT)
        output, complaints = process.communicate(timeout=SECONDS)
    finally:
        process.kill()

    assert process.returncode == 130
    assert output == ""
    assert complaints.splitlines()[-1] == "python -m benchmarks: interrupted; all brokers are stopped"
    assert list(temporary.iterdir()) == []
    assert processes_that_name(str(temporary)) == []
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("revision", ["no-such-branch", "-x", "", "HEAD:config"])
def test_unknown_revisions_are_refused_in_one_line(revision: str, checkout: Path, tmp_path: Path) -> None:
    answer = run_benchmark(checkout, tmp_path / "tmp", f"--against={revision}")
    assert answer == (2, "", f"python -m benchmarks: unknown revision: {revision}\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_outside_a_checkout_it_says_so_in_one_line(tmp_path: Path) -> None:
    tree = copy_of_this_tree(tmp_path / "release")
    status, output, complaints = run_benchmark(tree, tmp_path / "tmp", "--against", "HEAD")
    assert (status, output) == (2, "")
    (line,) = complaints.splitlines()
    assert line.startswith(f"python -m benchmarks: {tree} is not a git checkout (")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "mosquitto,parley"), "--against compares trees of Parley, not mosquitto"),
        (("--threshold", "1"), "argument --threshold: must be at least 0 and below 1"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], complaint: str, checkout: Path, tmp_path: Path) -> None:
    status, output, complaints = run_benchmark(checkout, tmp_path / "tmp", "--against", "HEAD", *arguments)
    assert (status, output) == (2, "")
    assert complaints.splitlines()[-1] == f"python -m benchmarks: error: {complaint}"


def test_brokers_that_run_none_of_the_workloads(checkout: Path, tmp_path: Path) -> None:
    only = ("--only", "parley-durable", "--workload", "connect")
    answer = run_benchmark(checkout, tmp_path / "tmp", "--against", "HEAD", *only)
    assert answer == (1, "", "python -m benchmarks: parley-durable can run none of these workloads\n")

"""What people see in terminals of 60 and 80 columns: tables, help, the pager, questions, completion."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from broker.ports import Device, Profile
from cli.app import app
from cli.listing import Selection, columns, selected
from tests.cli.fakes import NOW, FakeNode, running_node
from tests.cli.imctl import COMMAND, ENVIRONMENT, ROOT, done, misused, on
from tests.cli.terminal import Terminal, printed
from tests.cli.test_imctl import commands

LONG = "a-user-with-the-longest-id-that-is-allowed_" + "x" * 20 + "z"
assert len(LONG) == 64
WIDTHS = (60, 80)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    """A node with long names, texts of many words, and one wide script."""
    with running_node(tmp_path_factory.mktemp("crowd") / "data") as node:
        node.ask(node.directory.add_account(LONG, None, "user"))
        node.ask(node.directory.write_profile(Profile("bob", name="Bob who has a rather long name")))
        node.call("bob", "contacts.request", user_id="alice", note="Do you remember me? " * 4)
        node.call("alice", "contacts.accept", user_id="bob")
        node.call("alice", "contacts.remark", user_id="bob", remark="my friend from school " * 3)
        node.call(LONG, "contacts.request", user_id="alice", note="你好" * 40)
        node.call("alice", "groups.add", group_id="team", user_ids=[LONG])
        node.say(LONG, "users/alice/inbox", "word " * 60, "x" * 200)
        node.broker.online = [
            Device("alice", "laptop", "127.0.0.1:51640", NOW, True, 4, 1, 0),
            Device(LONG, "a-browser-with-a-long-client-id-" + "0" * 40, "[2001:db8::1:2:3]:51640", NOW),
        ]
        yield node


LISTINGS = [
    ("user", "list"),
    ("user", "show", LONG),
    ("group", "list"),
    ("group", "show", "team"),
    ("group", "requests", "team"),
    ("group", "bans", "team"),
    ("contact", "list", "--as", "alice", "--state", "all"),
    ("conversations", "--as", "alice"),
    ("presence", "alice", LONG),
    ("history", f"p:alice:{LONG}"),
    ("stats",),
    ("sessions",),
    ("sessions", "alice"),
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("listing", LISTINGS, ids=" ".join)
def test_no_line_is_wider_than_the_terminal_and_no_id_is_cut(
    crowd: FakeNode, listing: tuple[str, ...], width: int
) -> None:
    lines = printed("--data-dir", str(crowd.data_dir), *listing, columns=width)
    assert max(map(cell_len, lines)) <= width
    assert not any("…" in line for line in lines)
    # An id that is longer than its place goes on in the next line; it is never shortened.
    together = "".join("".join(lines).split())
    ids = [word for word in done(on(crowd, *listing)).split() if LONG in word or word.isdecimal()]
    assert [each for each in ids if each not in together] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_help_fits_and_cuts_nothing(width: int) -> None:
    names = {"--password-stdin", "--who-may-invite", "--no-history-visible", "IM_STORAGE__DATA_DIR"}
    seen = ""
    for path in commands():
        result = CliRunner().invoke(app, [*path, "--help"], terminal_width=width)
        for line in result.output.splitlines():
            assert len(line) <= width, f"imctl {' '.join(path)} --help: {line}"
        assert "…" not in result.output
        assert "..." not in result.output.replace("[ARGS]...", "").replace("}...", "").replace("]...", "")
        seen += result.output
    assert {name for name in names if name in seen} == names


@pytest.mark.parametrize("width", WIDTHS)
def test_help_in_a_terminal(width: int) -> None:
    for command in ((), ("group", "create"), ("user", "add")):
        lines = printed(*command, "--help", columns=width)
        assert max(map(len, lines)) <= width
        assert lines[0].startswith("Usage: imctl")


def test_one_rule_for_whom_a_command_acts_as() -> None:
    help_ = " ".join(done(subprocess_run("--help")).split())
    assert "Whom a command acts as: the system, which may do everything." in help_
    page = " ".join((ROOT / "docs" / "imctl.md").read_text().split())
    assert "A command acts as **the system**, which may do everything." in page


def subprocess_run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (*COMMAND, *arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


# --- acting as somebody ---------------------------------------------------------------------


def test_with_as_a_command_shows_what_that_user_may_see(node: FakeNode) -> None:
    node.say("alice", "groups/team", "before")
    done(on(node, "group", "add", "team", "carol"))
    node.say("alice", "groups/team", "after")
    assert "before" in done(on(node, "history", "g:team"))
    seen = done(on(node, "history", "g:team", "--as", "carol"))
    assert ("before" in seen, "after" in seen) == (False, True)
    done(on(node, "group", "create", "pair", "bob", "--as", "carol"))
    assert [line.split()[0] for line in done(on(node, "group", "list", "--as", "carol")).splitlines()] == [
        *("GROUP", "pair", "team")
    ]
    assert "pair" not in done(on(node, "group", "list", "--as", "alice"))
    assert "pair" in done(on(node, "group", "list"))
    assert '"owner": "carol"' in done(on(node, "group", "show", "pair", "--as", "carol", "--json"))


# --- limits and filters ---------------------------------------------------------------------


def names(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


def test_limit_and_filter(shared_node: FakeNode) -> None:
    def users(*options: str) -> list[str]:
        return names(done(on(shared_node, "user", "list", *options)))

    assert users("--limit", "2") == ["alice", "bob"]
    assert users("--filter", "ROL") == ["carol"]
    assert users("--filter", "user=?o*") == ["bob"]
    assert users("--filter", "user=o") == []
    assert users("--filter", "role=user", "--filter", "a", "-n", "1") == ["alice"]
    assert '"bob"' in done(on(shared_node, "user", "list", "--filter", "user=b*", "--json"))
    assert "alice" not in done(on(shared_node, "user", "list", "--filter", "user=b*", "--json"))
    assert names(done(on(shared_node, "stats", "--filter", "connections"))) == ["connections"]
    shown = done(on(shared_node, "group", "show", "team", "--filter", "role=owner"))
    assert shown.splitlines()[-1].split()[:2] == ["alice", "owner"]
    seqs = names(done(on(shared_node, "history", "g:team", "--filter", "content=line ?", "-n", "3")))
    assert seqs == ["7", "8", "9"]


def test_no_more_is_fetched_than_a_limit_needs() -> None:
    def items() -> Iterator[str]:
        yield from ("a", "b")
        raise AssertionError

    shown = columns("NAME")
    assert selected(shown, items(), lambda item: (item,), Selection(2, None, False)) == ["a", "b"]
    assert selected(shown, items(), lambda item: (item,), Selection(1, ["name=b"], False)) == ["b"]


# --- the pager ------------------------------------------------------------------------------


def test_what_is_longer_than_the_terminal_goes_to_the_pager(shared_node: FakeNode, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "[paged]"\nexec cat\n')
    pager.chmod(0o755)
    command = ("--data-dir", str(shared_node.data_dir), "history", "g:team", "-n", "100")
    with Terminal(*command, columns=80, lines=24, PAGER=str(pager)) as terminal:
        assert terminal.end() == 0
        assert terminal.lines[0] == "[paged]"
        assert len(terminal.lines) == 102
    for unpaged in ({"PAGER": "cat"}, {"PAGER": str(pager), "TERM": "dumb"}, {"PAGER": "/does/not/exist"}):
        with Terminal(*command, columns=80, lines=24, **unpaged) as terminal:
            assert terminal.end() == 0
            assert len(terminal.lines) == 101
    short = ("--data-dir", str(shared_node.data_dir), "user", "list")
    with Terminal(*short, columns=80, lines=24, PAGER=str(pager)) as terminal:
        assert terminal.end() == 0
        assert "[paged]" not in terminal.seen


def test_leaving_less_ends_the_command(shared_node: FakeNode) -> None:
    command = ("--data-dir", str(shared_node.data_dir), "history", "g:team", "-n", "250")
    with Terminal(*command, columns=80, lines=10) as terminal:
        terminal.expect("line 3")
        terminal.type("\x03")  # Ctrl-C is less's own, and does not end it
        terminal.type("q")
        assert terminal.end() == 0
        assert "line 250" not in terminal.seen
        assert "Traceback" not in terminal.seen


# --- questions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (("user", "remove", "bob"), "Remove user bob for ever, with contacts and memberships? [y/N]: "),
        (("group", "dismiss", "team"), "Dismiss group team for ever? [y/N]: "),
    ],
)
def test_what_cannot_be_undone_is_asked_first(
    node: FakeNode, command: tuple[str, ...], question: str
) -> None:
    for answer, status in (("n\n", 1), ("\n", 1), ("y\n", 0)):
        assert "bob" in done(on(node, "user", "list"))
        assert "dismissed" not in done(on(node, "group", "list"))
        with Terminal("--data-dir", str(node.data_dir), *command, columns=80) as terminal:
            terminal.expect(question)
            terminal.type(answer)
            assert terminal.end() == status
            assert "Traceback" not in terminal.seen
    gone = "bob" not in done(on(node, "user", "list"))
    assert gone or "dismissed" in done(on(node, "group", "list"))


@pytest.mark.parametrize(
    ("command", "question"),
    [(("user", "remove", "bob"), "[y/N]: "), (("user", "passwd", "bob"), "Password: ")],
)
def test_ctrl_c_ends_a_question_as_it_ends_any_command(
    node: FakeNode, command: tuple[str, ...], question: str
) -> None:
    with Terminal("--data-dir", str(node.data_dir), *command, columns=80) as terminal:
        terminal.expect(question)
        for _ in range(20):  # again, because one that comes just before it reads is seen only after the read
            terminal.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                terminal.process.wait(1)
                break
        assert terminal.end() == 130
        assert terminal.seen.rstrip().endswith(
            question.rstrip()
        )  # a hidden answer has ended its line already


def test_without_a_terminal_nothing_is_removed_unasked(node: FakeNode) -> None:
    assert "give --yes" in misused(on(node, "user", "remove", "bob", input="y\n"))
    assert "bob" in done(on(node, "user", "list"))


# --- completion -----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    source = ENVIRONMENT | {"_IMCTL_COMPLETE": f"source_{shell}"}
    result = subprocess.run(COMMAND, cwd=ROOT, env=source, capture_output=True, text=True, check=False)
    assert f"_IMCTL_COMPLETE=complete_{shell}" in result.stdout
    help_ = done(subprocess_run("--help"))
    assert "--install-completion" in help_
    assert "--show-completion" in help_


def test_completion_in_bash() -> None:
    """As bash's function calls imctl for the words so far."""
    for words, expected in (
        ("imctl us", {"user"}),
        ("imctl user re", {"remove"}),
        ("imctl user list --f", {"--filter"}),
        ("imctl group create --who-may-post ", {"members", "admins"}),
    ):
        environment = ENVIRONMENT | {
            "_IMCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        result = subprocess.run(
            COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert set(result.stdout.split()) == expected, words
        assert result.stderr == ""

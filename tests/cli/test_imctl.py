"""`imctl user`, `token`, `revoke` and `stats`; what is refused, what is wrong usage, and all help."""

import json
import os
import pty
import re
import subprocess

import pytest
from typer.testing import CliRunner

from broker.ports import Account
from cli.app import app
from tests.cli.fakes import NOW, FakeNode
from tests.cli.imctl import COMMAND, ENVIRONMENT, ROOT, done, expect, misused, on, refused


def account(node: FakeNode, user: str) -> Account:
    found: Account | None = node.ask(node.directory.account(user))
    assert found is not None
    return found


def password_hash(node: FakeNode, user: str) -> str | None:
    return account(node, user).password_hash


# --- accounts ----------------------------------------------------------------------------


def test_user_add_list_show(node: FakeNode) -> None:
    assert (
        done(on(node, "user", "add", "dave", "--password", "pass", "--role", "admin")) == "user dave added\n"
    )
    assert password_hash(node, "dave") == "hash of pass"
    listing = done(on(node, "user", "list")).splitlines()
    assert listing[0].split() == ["USER", "ROLE", "STATE", "PASSWORD", "CREATED"]
    assert listing[4].split()[:4] == ["dave", "admin", "active", "set"]
    assert len({line.index("active") for line in listing[1:]}) == 1  # aligned
    assert json.loads(done(on(node, "user", "list", "--json")))[3] == {
        "user_id": "dave",
        "role": "admin",
        "disabled": False,
        "has_password": True,
        "created_at": NOW,
    }
    assert "team" in done(on(node, "user", "show", "bob"))
    shown = json.loads(done(on(node, "user", "show", "bob", "--json")))
    assert shown["user_id"] == "bob"
    assert shown["groups"] == [{"group_id": "team", "role": "member", "joined_seq": 0}]


@pytest.mark.parametrize(
    ("input", "expected"), [("s3cret\n", "s3cret"), ("a b \r\nrest", "a b "), ("last", "last")]
)
def test_user_add_reads_the_password_from_stdin(node: FakeNode, input: str, expected: str) -> None:
    done(on(node, "user", "add", "dave", "--password-stdin", input=input))
    assert password_hash(node, "dave") == f"hash of {expected}"


def test_user_without_password(node: FakeNode) -> None:
    done(on(node, "user", "add", "dave", "--no-password"))
    assert password_hash(node, "dave") is None


def test_user_passwd(node: FakeNode) -> None:
    assert done(on(node, "user", "passwd", "bob", "--password", "other")) == "password of bob set\n"
    assert password_hash(node, "bob") == "hash of other"


def test_user_disable_enable_remove(node: FakeNode) -> None:
    assert done(on(node, "user", "disable", "bob")) == "user bob disabled\n"
    assert "disabled" in done(on(node, "user", "list"))
    assert "disabled" in refused(on(node, "token", "bob"))
    assert "disabled" in refused(on(node, "send", "alice", "hi", "--as", "bob"))
    assert done(on(node, "user", "enable", "bob")) == "user bob enabled\n"
    assert done(on(node, "user", "remove", "bob", "--yes")) == "user bob removed\n"
    assert refused(on(node, "user", "show", "bob")) == "no user bob"


def test_the_owner_of_a_group_is_not_removed(node: FakeNode) -> None:
    assert "owns 1 group (team)" in refused(on(node, "user", "remove", "alice", "--yes"))
    done(on(node, "group", "dismiss", "team", "-y"))
    done(on(node, "user", "remove", "alice", "--yes"))


def test_a_password_is_asked_for_twice_on_a_terminal(node: FakeNode) -> None:
    leader, follower = pty.openpty()
    command = (*COMMAND, "--data-dir", str(node.data_dir), "user", "add", "dave")
    with subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        os.close(follower)
        # the space after the colon comes once the terminal has stopped to echo
        seen = expect(leader, "Password: ")
        os.write(leader, b"hidden\n")
        seen += expect(leader, "Repeat for confirmation: ")
        os.write(leader, b"hidden\n")
        seen += expect(leader, "added")
    os.close(leader)
    assert process.returncode == 0
    assert "hidden" not in seen
    assert password_hash(node, "dave") == "hash of hidden"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("user", "add", "alice", "--password", "pass"), "user alice exists already"),
        (("user", "add", "two words", "--password", "pass"), "'two words' is not a user id"),
        (("user", "add", "x" * 65, "--password", "pass"), "is not a user id"),
        (("user", "add", "dave", "--password", "abc"), "a password has 4 to 1024 characters, not 3"),
        (("user", "add", "dave", "--password", "x" * 1025), "a password has 4 to 1024 characters, not 1025"),
        (("user", "passwd", "nobody", "--password", "pass"), "no user nobody"),
        (("user", "show", "nobody"), "no user nobody"),
        (("user", "disable", "nobody"), "no user nobody"),
        (("user", "enable", "nobody"), "no user nobody"),
        (("user", "remove", "nobody", "--yes"), "no user nobody"),
        (("token", "nobody"), "no user nobody"),
        (("token", "alice", "--ttl", "0"), "a token is valid for 1 to"),
        (("token", "alice", "--ttl", "999999d"), "a token is valid for 1 to"),
        (("group", "show", "nothing"), "no group nothing"),
        (("group", "create", "team", "--owner", "alice"), "group team exists already"),
        (("group", "create", "a/b", "--owner", "alice"), "'a/b' is not a group id"),
        (("group", "create", "new", "--owner", "nobody"), "no user nobody"),
        (
            ("group", "create", "new", "--owner", "alice", "--name", "x" * 129),
            "name: expected `str` of length <= 128",
        ),
        (("group", "add", "team", "bad id"), "'bad id' is not a user id"),
        (("group", "add", "nothing", "bob"), "no group nothing"),
        (("group", "remove", "team", "alice"), "alice: not possible for the owner"),
        (("group", "dismiss", "nothing", "--yes"), "no group nothing"),
        (("send", "nobody", "hi", "--as", "alice"), "no user nobody"),
        (("send", "bob", "hi", "--as", "nobody"), "no user nobody"),
        (("send", "g:team", "hi", "--as", "carol"), "carol is not a member of group team"),
        (("send", "users/bob/presence", "hi", "--as", "alice"), "is not an inbox or group topic"),
        (("send", "bob", '{"content": 1, "type": 5}', "--as", "alice"), "type"),
        (("send", "users/bob/inbox/x", "hi"), "is not an inbox or group topic"),
        (("send", "two words", "hi"), "'two words' is not a user id"),
        (("send", "g:nothing", "hi"), "no group nothing"),
        (("send", "bob", "hi", "--as", "bad id"), "'bad id' is not a user id"),
        (("send", "bob", "hi", "--reply-to", "abc"), "'abc' is not a message id"),
        (("send", "bob", "hi", "--reply-to", "1", "--as", "alice"), "reply_to: no message 1 in p:alice:bob"),
        (("send", "g:team", "hi", "--mention", "carol", "--as", "bob"), "carol is not a member"),
        (("send", "g:team", "hi", "--mention", "c d", "--as", "bob"), "'c d' is not a user id"),
        (("send", "bob", "hi", "--client-msg-id", "x" * 65), "client_msg_id: expected `str` of length <= 64"),
        (("edit", "1", "new", "--as", "bob"), "no message 1"),
        (("edit", "one", "new", "--as", "bob"), "'one' is not a message id"),
        (("recall", "1"), "no message 1"),
        (("recall", "9223372036854775808"), "is not a message id"),
        (("readers", "1"), "no message 1"),
        (("read", "g:team", "--as", "carol"), "not a member of this group"),
        (("read", "g:team", "900", "--as", "bob"), "g:team has no entry 900: the last is 250"),
        (("read", "p:carol:alice", "--as", "alice"), "p:alice:carol has no messages"),
        (("read", "p:bob:alice", "--as", "carol"), "you are not part of p:alice:bob"),
        (("read", "alice", "--as", "bob"), "'alice' is not a conversation"),
        (("revoke", "nobody"), "no user nobody"),
        (("kick", "nobody"), "no user nobody"),
        (("sessions", "nobody"), "no user nobody"),
        (("presence", "alice", "nobody"), "no user nobody"),
        (("presence", "a/b"), "'a/b' is not a user id"),
        (("user", "profile", "nobody"), "no user nobody"),
        (("user", "update", "nobody", "--name", "N"), "no user nobody"),
        (("user", "update", "bob", "--name", "x" * 129), "name: expected `str` of length <= 128"),
        (("conversations", "--as", "nobody"), "no user nobody"),
        (("conversation", "set", "p:alice:carol", "--pin", "--as", "alice"), "no conversation p:alice:carol"),
        (("contact", "list", "--as", "nobody"), "no user nobody"),
        (("contact", "request", "alice", "--as", "alice"), "not possible with oneself"),
        (("contact", "request", "nobody", "--as", "alice"), "no user nobody"),
        (("contact", "accept", "bob", "--as", "alice"), "there is no contact request from bob"),
        (("contact", "reject", "bob", "--as", "alice"), "there is no contact request from bob"),
        (("contact", "remove", "bob", "--as", "alice"), "bob is not your contact"),
        (("group", "update", "team", "--name", "N", "--as", "bob"), "group team: not allowed"),
        (("group", "transfer", "team", "carol"), "carol is not a member of group team"),
        (("group", "role", "team", "carol", "admin"), "carol is not a member of group team"),
        (("group", "role", "team", "alice", "member"), "alice: not possible for the owner"),
        (("group", "mute", "team", "alice"), "alice: not possible for the owner"),
        (("group", "mute", "team", "carol"), "carol is not a member of group team"),
        (("group", "unban", "team", "carol"), "carol is not banned from group team"),
        (("group", "bans", "team", "--as", "bob"), "group team: not allowed"),
        (("group", "join", "team", "--as", "bob"), "already done"),
        (("group", "leave", "team", "--as", "alice"), "not possible for the owner"),
        (("group", "accept", "team", "carol"), "carol has not asked to join"),
        (("group", "reject", "team", "carol"), "carol has not asked to join"),
        (("tail", "nobody"), "no user nobody"),
        (("tail", "g:nothing"), "no group nothing"),
        (("tail", "sensors/one"), "is not an inbox or group topic"),
        (("history", "p:alice:nobody"), "no user nobody"),
        (("history", "g:nothing"), "no group nothing"),
        (("history", "alice"), "'alice' is not a conversation"),
    ],
)
def test_refusals(shared_node: FakeNode, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(on(shared_node, *arguments))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("user", "add", "dave"), "there is no terminal to ask on"),
        (("user", "add", "dave", "--password", "pass", "--password-stdin"), "exclude each other"),
        (("user", "add", "dave", "--no-password", "--password", "pass"), "excludes a password"),
        (("user", "add", "dave", "--password", "pass", "--role", "king"), "king"),
        (("user", "add"), "USER"),
        (("token", "alice", "--ttl", "soon"), "'soon' is not a duration"),
        (("token", "alice", "--ttl", "-5"), "'-5' is not a duration"),
        (("token", "alice", "--ttl", "1x"), "'1x' is not a duration"),
        (("token", "alice", "--ttl", ""), "is not a duration"),
        (("group", "create", "new"), "--owner"),
        (("group", "update", "team"), "at least one setting"),
        (("group", "update", "team", "--who-may-post", "nobody"), "--who-may-post"),
        (("group", "role", "team", "bob", "owner"), "'owner'"),
        (("group", "mute", "team", "--for", "soon"), "'soon' is not a duration"),
        (("group", "join", "team"), "--as"),
        (("group", "leave", "team"), "--as"),
        (("user", "update", "bob"), "at least one setting"),
        (("user", "update", "bob", "--who-may-message", "nobody"), "--who-may-message"),
        (("send", "bob"), "TEXT"),
        (("send", "g:team", "hi", "--mention", "all", "--mention", "bob"), "--mention all excludes other"),
        (("edit", "1", "new"), "--as"),
        (("recall",), "MESSAGE_ID"),
        (("read", "g:team"), "--as"),
        (("read", "g:team", "0", "--as", "bob"), "SEQ"),
        (("read", "g:team", "4294967296", "--as", "bob"), "SEQ"),
        (("conversations",), "--as"),
        (("conversations", "--as", "bob", "--since", "-1"), "--since"),
        (("conversation", "set", "g:team", "--as", "bob"), "at least one mark"),
        (("contact", "list"), "--as"),
        (("contact", "list", "--as", "bob", "--state", "none"), "--state"),
        (("presence",), "USER"),
        (("kick",), "USER"),
        (("revoke",), "USER"),
        (("tail", "bob", "-n", "0"), "--count"),
        (("history", "g:team", "--limit", "many"), "--limit"),
        (("user", "remove", "bob"), "give --yes: there is no terminal to ask on"),
        (("group", "dismiss", "team"), "give --yes: there is no terminal to ask on"),
        (("user", "list", "--limit", "0"), "--limit"),
        (("user", "list", "--filter", "colour=red"), "no column 'colour'; there are user, role, state"),
        (("dance",), "dance"),
        (("stats", "--loud"), "--loud"),
    ],
)
def test_wrong_usage(shared_node: FakeNode, arguments: tuple[str, ...], said: str) -> None:
    assert said in misused(on(shared_node, *arguments))


def test_an_argument_that_is_not_utf8_is_wrong_usage(shared_node: FakeNode) -> None:
    assert "not valid UTF-8" in misused(on(shared_node, "user", "show", os.fsdecode(b"\xff")))


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [((), 43200), (("--ttl", "90"), 90), (("--ttl", "30m"), 1800), (("--ttl", "1h30m"), 5400)],
)
def test_token(shared_node: FakeNode, ttl: tuple[str, ...], seconds: int) -> None:
    assert done(on(shared_node, "token", "alice", *ttl)) == f"token-of-alice-for-{seconds}\n"


def test_revoke(node: FakeNode) -> None:
    assert done(on(node, "revoke", "alice")) == "tokens of alice revoked\n"
    assert account(node, "alice").tokens_after == NOW // 1000 + 1
    assert account(node, "bob").tokens_after == NOW // 1000


@pytest.mark.parametrize("role", ["user", "admin", "service"])
def test_roles(node: FakeNode, role: str) -> None:
    done(on(node, "user", "add", "dave", "--no-password", "--role", role))
    assert account(node, "dave").role == role


# --- help --------------------------------------------------------------------------------


def commands(*path: str) -> list[tuple[str, ...]]:
    """A command and all below it, as their help lists them."""
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    listed = result.output.partition("\nCommands:\n")[2]
    names = re.findall(r"^  ([a-z]+)  ", listed, re.MULTILINE)
    return [path] + [command for name in names for command in commands(*path, name)]


def test_every_command_has_help() -> None:
    every = [" ".join(path) for path in commands()]
    assert len(every) == len(set(every)) == 60
    for command in ("user profile", "contact block", "group ban", "conversation set", "kick", "readers"):
        assert command in every


# --- the node ---------------------------------------------------------------------------


def test_stats(shared_node: FakeNode) -> None:
    values = json.loads(done(on(shared_node, "stats", "--json")))
    assert values == {"connections": 3, "messages_stored": 254}
    assert done(on(shared_node, "stats")).splitlines()[1].split() == ["connections", "3"]

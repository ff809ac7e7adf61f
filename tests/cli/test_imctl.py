"""The commands of imctl, against a real gRPC server over fake ports."""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.fakes import NOW, FakeNode, running_node
from tests.cli.imctl import COMMAND, ENVIRONMENT, ROOT, done, expect, misused, on, refused, wait

# --- accounts ----------------------------------------------------------------------------


def test_user_add_list_show(node: FakeNode) -> None:
    assert (
        done(on(node, "user", "add", "dave", "--password", "pass", "--role", "admin")) == "user dave added\n"
    )
    assert node.directory.passwords["dave"] == "pass"
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
    assert node.directory.passwords["dave"] == expected


def test_user_without_password(node: FakeNode) -> None:
    done(on(node, "user", "add", "dave", "--no-password"))
    assert node.directory.users["dave"].password_hash is None


def test_user_passwd(node: FakeNode) -> None:
    assert done(on(node, "user", "passwd", "bob", "--password", "other")) == "password of bob set\n"
    assert node.directory.passwords["bob"] == "other"


def test_user_disable_enable_remove(node: FakeNode) -> None:
    assert done(on(node, "user", "disable", "bob")) == "user bob disabled\n"
    assert "disabled" in done(on(node, "user", "list"))
    assert "disabled" in refused(on(node, "token", "bob"))
    assert "disabled" in refused(on(node, "send", "alice", "hi", "--as", "bob"))
    assert done(on(node, "user", "enable", "bob")) == "user bob enabled\n"
    assert done(on(node, "user", "remove", "bob")) == "user bob removed\n"
    assert refused(on(node, "user", "show", "bob")) == "no user bob"


def test_the_owner_of_a_group_is_not_removed(node: FakeNode) -> None:
    assert "owns 1 group (team)" in refused(on(node, "user", "remove", "alice"))
    done(on(node, "group", "dismiss", "team"))
    done(on(node, "user", "remove", "alice"))


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
    assert node.directory.passwords["dave"] == "hidden"


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
        (("user", "remove", "nobody"), "no user nobody"),
        (("token", "nobody"), "no user nobody"),
        (("token", "alice", "--ttl", "0"), "a token lives for 1 to"),
        (("token", "alice", "--ttl", "999999d"), "a token lives for 1 to"),
        (("group", "show", "nothing"), "no group nothing"),
        (("group", "create", "team", "--owner", "alice"), "group team exists already"),
        (("group", "create", "a/b", "--owner", "alice"), "'a/b' is not a group id"),
        (("group", "create", "new", "--owner", "nobody"), "no user nobody"),
        (("group", "create", "new", "--owner", "alice", "--name", "x" * 129), "at most 128 characters"),
        (("group", "add", "team", "bad id"), "'bad id' is not a user id"),
        (("group", "add", "nothing", "bob"), "no group nothing"),
        (("group", "remove", "team", "alice"), "the owner of group team stays"),
        (("group", "dismiss", "nothing"), "no group nothing"),
        (("send", "nobody", "hi", "--as", "alice"), "there is no user nobody"),
        (("send", "bob", "hi", "--as", "nobody"), "no user nobody"),
        (("send", "g:team", "hi", "--as", "carol"), "carol is not a member of group team"),
        (("send", "users/bob/presence", "hi", "--as", "alice"), "is not an inbox or group topic"),
        (("send", "bob", '{"content": 1, "type": 5}', "--as", "alice"), "type"),
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
        (("send", "bob", "hi"), "--as"),
        (("tail", "bob", "-n", "0"), "--count"),
        (("history", "g:team", "--limit", "many"), "--limit"),
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


# --- groups ------------------------------------------------------------------------------


def test_group_life(node: FakeNode) -> None:
    made = on(node, "group", "create", "new", "bob", "alice", "--owner", "alice", "--name", "Neu €")
    assert done(made) == "group new created with 2 members\n"
    assert done(on(node, "group", "add", "new", "carol", "bob")) == "1 member added to new\n"
    assert done(on(node, "group", "remove", "new", "bob", "carol")) == "2 members removed from new\n"
    assert json.loads(done(on(node, "group", "show", "new", "--json"))) == {
        "group_id": "new",
        "name": "Neu €",
        "owner": "alice",
        "created_at": NOW,
        "members": [{"user_id": "alice", "role": "owner", "joined_seq": 0, "muted_until": 0}],
    }
    assert json.loads(done(on(node, "group", "list", "--json")))[0] == {
        "group_id": "new",
        "name": "Neu €",
        "owner": "alice",
        "member_count": 1,
        "created_at": NOW,
    }
    assert [line.split()[0] for line in done(on(node, "group", "list")).splitlines()] == [
        "GROUP",
        "new",
        "team",
    ]
    assert done(on(node, "group", "dismiss", "new")) == "group new dismissed\n"
    assert refused(on(node, "group", "show", "new")) == "no group new"


def test_new_members_begin_at_the_head_of_the_group(node: FakeNode) -> None:
    node.say("alice", "groups/team", "one", "two")
    done(on(node, "group", "add", "team", "carol"))
    assert node.directory.joined["team"]["carol"].joined_seq == 2
    done(on(node, "group", "dismiss", "team"))
    done(on(node, "group", "create", "team", "--owner", "bob"))
    assert node.directory.joined["team"]["bob"].joined_seq == 2


def test_a_large_group_is_shown_whole(node: FakeNode) -> None:
    users = [f"user-{number:05}" for number in range(2500)]
    for user in users:
        node.directory.users[user] = node.directory.users["bob"]
    done(on(node, "group", "add", "team", *users))
    shown = json.loads(done(on(node, "group", "show", "team", "--json")))
    assert [member["user_id"] for member in shown["members"]] == ["alice", "bob", *users]
    assert len(done(on(node, "group", "show", "team")).splitlines()) == 7 + 2502


# --- messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "log"),
    [
        ("bob", "users/bob/inbox"),
        ("users/bob/inbox", "users/bob/inbox"),
        ("groups/team", "g:team"),
        ("g:team", "g:team"),
    ],
)
def test_send(node: FakeNode, to: str, log: str) -> None:
    assert done(on(node, "send", to, "hi you", "--as", "alice")).startswith("sent 7001 to ")
    sent = json.loads(
        done(on(node, "send", to, '{"content":{"k":1},"type":"custom"}', "--as", "alice", "--json"))
    )
    assert sent["id"] == "7002"
    assert sent["seq"] == 2
    stored = [json.loads(entry.body) for entry in node.log.logs[log]]
    assert [(body["type"], body["content"]) for body in stored] == [("text", "hi you"), ("custom", {"k": 1})]


def test_send_takes_bytes_that_are_not_text(node: FakeNode) -> None:
    done(on(node, "send", "bob", os.fsdecode(b"\xff\xfe"), "--as", "alice"))
    assert json.loads(node.log.logs["users/bob/inbox"][0].body)["type"] == "binary"


def test_tail_from_start_stops_after_count(shared_node: FakeNode) -> None:
    lines = done(on(shared_node, "tail", "bob", "--from-start", "-n", "4")).splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["offset"] for entry in entries] == [1, 2, 3, 4]
    assert entries[2]["content"] == {"k": [1]}


def test_tail_prints_what_comes_until_sigint(node: FakeNode) -> None:
    node.say("alice", "groups/team", "before")
    command = (*COMMAND, "--data-dir", str(node.data_dir), "tail", "g:team")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
    ) as process:
        wait(lambda: node.control.tails == 1)
        done(on(node, "send", "g:team", "now", "--as", "alice"))
        assert process.stdout
        assert json.loads(process.stdout.readline())["content"] == "now"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0
    wait(lambda: node.control.tails == 0)


def test_tail_of_a_node_that_stops(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        command = (*COMMAND, "--data-dir", str(tmp_path), "tail", "bob")
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT)
        wait(lambda: node.control.tails == 1)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (1, f"imctl: the node at {node.address} ended the connection\n")


def test_history(shared_node: FakeNode) -> None:
    lines = done(on(shared_node, "history", "p:bob:alice")).splitlines()
    assert lines[0].split() == ["SEQ", "TIME", "FROM", "TYPE", "CONTENT"]
    assert [line.split(maxsplit=5)[-1] for line in lines[1:]] == [
        "hi bob",
        r"\x1b[2Jbold\nmove",
        '{"k": [1]}',
        "你好 alice",
    ]
    messages = json.loads(done(on(shared_node, "history", "p:alice:bob", "--json")))
    assert [message["seq"] for message in messages] == [1, 2, 3, 4]
    assert "offset" not in messages[0]


@pytest.mark.parametrize(
    ("arguments", "seqs"),
    [
        ((), range(231, 251)),
        (("-n", "3"), range(248, 251)),
        (("--limit", "1000"), range(1, 251)),
        (("--before", "11"), range(1, 11)),
        (("--before", "200", "-n", "150"), range(50, 200)),
        (("--before", "1"), range(0)),
    ],
)
def test_history_limits(shared_node: FakeNode, arguments: tuple[str, ...], seqs: range) -> None:
    messages = json.loads(done(on(shared_node, "history", "g:team", "--json", *arguments)))
    assert [message["seq"] for message in messages] == list(seqs)


def test_history_of_large_messages_comes_in_parts(node: FakeNode) -> None:
    node.say("alice", "groups/team", *(["x" * 200_000] * 20))
    messages = json.loads(done(on(node, "history", "groups/team", "--json")))
    assert [message["seq"] for message in messages] == list(range(1, 21))


def test_history_when_the_store_fails(node: FakeNode) -> None:
    node.log.fails = True
    assert refused(on(node, "history", "g:team")) == "the store is not available"


def test_history_of_nothing_yet(shared_node: FakeNode) -> None:
    assert json.loads(done(on(shared_node, "history", "p:alice:carol", "--json"))) == []
    assert len(done(on(shared_node, "history", "p:alice:carol")).splitlines()) == 1


def test_stats(shared_node: FakeNode) -> None:
    values = json.loads(done(on(shared_node, "stats", "--json")))
    assert values == {"connections": 3, "messages_stored": 254}
    assert done(on(shared_node, "stats")).splitlines()[1].split() == ["connections", "3"]

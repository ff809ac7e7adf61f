"""`imctl send`, `edit`, `recall`, `read`, `tail` and `history`."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.domain.message import Content, draft
from broker.domain.topics import parse_topic
from tests.cli.fakes import MINUTE, NOW, FakeNode, running_node
from tests.cli.imctl import COMMAND, ENVIRONMENT, ROOT, done, on, refused, wait


def bodies(node: FakeNode, log: str) -> list[dict[str, Any]]:
    return [json.loads(entry.body) for entry in node.ask(node.log.read(log, 0, 100, 1 << 20))]


def send(node: FakeNode, *arguments: str) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(done(on(node, "send", *arguments, "--json")))
    return sent


def said(node: FakeNode, conversation: str) -> list[str]:
    """The lines of the history without offsets, times and senders."""
    lines = done(on(node, "history", conversation)).splitlines()[1:]
    return [" ".join(line.split(maxsplit=6)[5:]) for line in lines]


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
    assert re.match(r"sent \d+ to .* as seq 1\n", done(on(node, "send", to, "hi you", "--as", "alice")))
    sent = json.loads(
        done(on(node, "send", to, '{"content":{"k":1},"type":"custom"}', "--as", "alice", "--json"))
    )
    stored = bodies(node, log)
    assert (sent["id"], sent["seq"], sent["created_at"]) == (stored[1]["id"], 2, NOW)
    assert [(body["type"], body["content"]) for body in stored] == [("text", "hi you"), ("custom", {"k": 1})]


def test_send_takes_bytes_that_are_not_text(node: FakeNode) -> None:
    done(on(node, "send", "bob", os.fsdecode(b"\xff\xfe"), "--as", "alice"))
    assert bodies(node, "users/bob/inbox")[0]["type"] == "binary"


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
        wait(lambda: node.broker.watches == 1)
        done(on(node, "send", "g:team", "now", "--as", "alice"))
        assert process.stdout
        assert json.loads(process.stdout.readline())["content"] == "now"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0
    wait(lambda: node.broker.watches == 0)


def test_tail_of_a_node_that_stops(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        command = (*COMMAND, "--data-dir", str(tmp_path), "tail", "bob")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, **pipes, text=True, cwd=ROOT, env=ENVIRONMENT)
        wait(lambda: node.broker.watches == 1)
        node.say("alice", "users/bob/inbox", "one")
        assert process.stdout is not None
        assert "one" in process.stdout.readline()
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (1, f"imctl: the node at {node.address} ended the connection\n")


def test_history(shared_node: FakeNode) -> None:
    lines = done(on(shared_node, "history", "p:bob:alice")).splitlines()
    assert lines[0].split() == ["SEQ", "ID", "TIME", "FROM", "TYPE", "CONTENT"]
    assert [line.split(maxsplit=6)[-1] for line in lines[1:]] == [
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
    assert refused(on(node, "history", "g:team")) == "the store failed, try again later"


def test_history_of_nothing_yet(shared_node: FakeNode) -> None:
    assert json.loads(done(on(shared_node, "history", "p:alice:carol", "--json"))) == []
    assert len(done(on(shared_node, "history", "p:alice:carol")).splitlines()) == 1


def test_send_with_everything(node: FakeNode) -> None:
    first = send(node, "g:team", "hello", "--as", "alice")
    options = ("--reply-to", first["id"], "--mention", "bob", "--mention", "alice", "--client-msg-id", "c-1")
    answer = send(node, "g:team", "hi @bob", "--as", "alice", *options)
    assert send(node, "g:team", "hi @bob", "--as", "alice", *options) == answer
    stored = bodies(node, "g:team")[1]
    assert stored["reply_to"] == first["id"]
    assert stored["mentions"] == ["bob", "alice"]
    assert stored["client_msg_id"] == "c-1"
    assert "other content" in refused(on(node, "send", "g:team", "another", "--as", "alice", *options))
    send(node, "g:team", "all of you", "--as", "bob", "--mention", "all")
    payload = {"content": "x", "mentions": ["bob"], "reply_to": first["id"]}
    send(node, "g:team", json.dumps(payload), "--as", "bob")
    assert [body.get("mentions") for body in bodies(node, "g:team")[2:]] == ["all", ["bob"]]


def test_send_as_the_system(node: FakeNode) -> None:
    assert send(node, "bob", "maintenance at noon")["conversation_id"] == "p:bob:system"
    send(node, "g:team", "maintenance is over")
    assert bodies(node, "g:team")[0]["from_user_id"] == "system"
    done(on(node, "group", "dismiss", "team", "--yes"))
    assert "dismissed" in refused(on(node, "send", "g:team", "anybody?"))


def test_edit_and_recall(node: FakeNode) -> None:
    first, second, third = (send(node, "bob", text, "--as", "alice")["id"] for text in ("one", "two", "3"))
    assert done(on(node, "edit", first, "uno\nx", "--as", "alice")) == f"message {first} edited\n"
    done(on(node, "edit", third, '{"content":{"k":3}}', "--as", "alice"))
    assert done(on(node, "recall", second, "--as", "alice")) == f"message {second} recalled\n"
    assert said(node, "p:bob:alice") == [
        r"text uno\nx (edited)",
        "text (recalled)",
        'text {"k":3} (edited)',
        rf"edit message {first} says now: uno\nx",
        f'edit message {third} says now: {{"k":3}}',
        f"recall message {second} was recalled",
    ]
    assert f"message {second} was recalled" in refused(on(node, "recall", second, "--as", "alice"))
    assert "only the sender of a private message may edit it" in refused(
        on(node, "edit", first, "mine", "--as", "bob")
    )
    node.clock.now += 3 * MINUTE
    late = refused(on(node, "recall", first, "--as", "alice"))
    assert late == f"message {first}: too much time has passed"
    done(on(node, "recall", first))


def test_read_and_readers(node: FakeNode) -> None:
    first, second = node.say("alice", "groups/team", "one", "two")
    assert done(on(node, "read", "g:team", "1", "--as", "bob")) == "g:team read by bob up to seq 1\n"
    assert json.loads(done(on(node, "readers", first.id, "--json"))) == [{"user_id": "bob", "read_seq": 1}]
    assert json.loads(done(on(node, "readers", second.id, "--json"))) == []
    assert done(on(node, "read", "groups/team", "--as", "bob")) == "g:team read by bob up to seq 2\n"
    lines = done(on(node, "readers", second.id)).splitlines()
    assert [line.split() for line in lines] == [["USER", "READ", "UP", "TO", "SEQ"], ["bob", "2"]]
    done(on(node, "user", "update", "bob", "--no-read-receipts"))
    assert json.loads(done(on(node, "readers", second.id, "--json"))) == []


def test_contact_requests_in_words(node: FakeNode) -> None:
    done(on(node, "contact", "request", "bob", "--as", "alice", "--note", "it's me"))
    done(on(node, "contact", "reject", "alice", "--as", "bob"))
    done(on(node, "contact", "request", "bob", "--as", "alice"))
    done(on(node, "contact", "accept", "alice", "--as", "bob"))
    assert said(node, "p:alice:bob") == [
        "system alice asked bob to be a contact: it's me",
        "system bob rejected the contact request of alice",
        "system alice asked bob to be a contact",
        "system bob accepted alice as a contact",
    ]


def test_what_a_newer_node_says_is_shown_as_it_is(node: FakeNode) -> None:
    async def store() -> None:
        for content in (b'{"event":"moon_landing","by":"alice"}', b'{"event":"role_set"}', b'"odd"', b"[1]"):
            raw = Content(msgspec.Raw(content), type="system")
            await node.broker.append([draft("alice", parse_topic("groups/team"), raw)])

    node.ask(store())
    assert said(node, "g:team") == [
        'system {"event":"moon_landing","by":"alice"}',
        'system {"event":"role_set"}',
        'system "odd"',
        "system [1]",
    ]

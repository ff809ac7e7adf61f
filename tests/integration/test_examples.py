"""The programs of examples/ do what they say, on a node that is killed and a link that is cut."""

import base64
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, private
from tests.integration.link import Link
from tests.integration.node import HOST, ROOT, Node, password, wait_for

EXAMPLES = ROOT / "examples"


@contextmanager
def running(program: str, *arguments: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            (sys.executable, str(EXAMPLES / program), *arguments),
            stdout=output,
            stderr=output,
            env=os.environ | {"INTERVAL": "0.02"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_has_sixty_lines_at_most(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= 60


def readings(node: Node, device: str) -> list[dict[str, Any]]:
    return [each for each in node.history(private(device, "station")) if each["type"] == "binary"]


@pytest.mark.timeout(240)
def test_the_device_loses_no_reading_and_none_comes_twice(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    node = make_node().start()
    for user in ("device", "station"):
        node.call("AddUser", pb.AddUserRequest(user_id=user, password=password(user), role="user"))
    spool, log = tmp_path / "spool.db", tmp_path / "device.log"

    def stored() -> int:
        return len(readings(node, "device"))

    def more(count: int) -> None:
        before = stored()
        wait_for(lambda: stored() >= before + count, f"{count} more readings; {log.read_text()}", 60)

    with Link(node.port) as link:
        arguments = (HOST, str(link.port), "device", password("device"), "station", str(spool))
        with running("device.py", *arguments, log=log):
            more(20)
            for _ in range(5):  # the link comes and goes
                link.cut()
                more(5)
            link.down = True
            link.cut()
            more_taken(spool, 30)
            link.down = False
            more(30)
            for _ in range(3):  # the node is killed, and comes back
                node.kill()
                more_taken(spool, 5)
                node.start()
                link.target = node.port
                more(10)
        with running("device.py", *arguments, log=log):  # the device itself was killed
            more(10)
        with running("device.py", *arguments, log=log):
            more(1)
            link.cut()
            more(1)
        # The last readings are still in the spool, or stored without the device knowing it.
        with running("device.py", *arguments, log=log):
            taken_before = taken(spool)
            wait_for(lambda: all_sent(spool, taken_before), "all readings to be acknowledged", 60)
    came = [base64.b64decode(each["content"]) for each in readings(node, "device")]
    assert len(set(came)) == len(came), "a reading is stored twice"
    left = {row[0] for row in rows(spool, "SELECT bytes FROM readings")}
    assert len(set(came) | left) == taken(spool), "a reading is lost"
    times = [struct.unpack(">Qf", each)[0] for each in came]
    assert len(times) > 100
    assert len({each["client_msg_id"] for each in readings(node, "device")}) == len(came)


def rows(spool: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(spool, timeout=30)) as database:
        return database.execute(query).fetchall()


def taken(spool: Path) -> int:
    """How many readings the device has taken so far."""
    ((count,),) = rows(spool, "SELECT seq FROM sqlite_sequence")
    return int(count)


def all_sent(spool: Path, number: int) -> bool:
    return not rows(spool, f"SELECT 1 FROM readings WHERE number <= {number} LIMIT 1")


def more_taken(spool: Path, count: int) -> None:
    before = taken(spool)
    wait_for(lambda: taken(spool) >= before + count, f"{count} more readings to be taken")


@pytest.mark.timeout(240)
def test_the_bot_answers_each_question_once(make_node: Callable[..., Node], tmp_path: Path) -> None:
    node = make_node().start()
    for user in ("bot", "alice"):
        node.call("AddUser", pb.AddUserRequest(user_id=user, password=password(user), role="user"))
    node.group("alice", "bot", name="team")
    log = tmp_path / "bot.log"

    def answers(conversation: str) -> list[tuple[str, str]]:
        """What the bot has answered to which question."""
        history = node.history(conversation)
        said = {each["id"]: each["content"] for each in history}
        return [
            (said[each["reply_to"]], each["content"]) for each in history if each["from_user_id"] == "bot"
        ]

    def ask(*questions: str) -> None:
        with Device(node, "alice") as alice:
            for question in questions:
                alice.rpc("messages.send", user_id="bot", content=question)

    def expect(count: int) -> None:
        wait_for(lambda: len(answers("p:alice:bot")) == count, f"{count} answers; {log.read_text()}", 60)

    with Link(node.port) as link:
        arguments = (HOST, str(link.port), "bot", password("bot"))
        with running("bot.py", *arguments, log=log):
            wait_for(lambda: node.stats()["connections"] > 0, "the bot to connect")
            wait_for(lambda: node.stats()["subscriptions"] >= 3, "the bot to subscribe")
            ask("add 2 3", "what?")
            expect(2)
            with Device(node, "alice") as alice:
                alice.rpc("messages.send", group_id="team", content="add 1 1")
                alice.rpc("messages.send", group_id="team", content="@bot add 4 5", mentions=["bot"])
            wait_for(lambda: answers("g:team"), "the answer in the group")
            link.cut()
            ask("add 1 2")
            expect(3)
            node.kill()
            node.start()
            link.target = node.port
            ask("add 3 4")
            expect(4)
        ask("add 5 6")  # while the bot is away
        with running("bot.py", *arguments, log=log):
            expect(5)
            ask("add 7 8")
            expect(6)
    assert answers("g:team") == [("@bot add 4 5", "9")]
    assert answers("p:alice:bot") == [
        ("add 2 3", "5"),
        ("what?", "I know: time; add NUMBER..."),
        *(("add 1 2", "3"), ("add 3 4", "7"), ("add 5 6", "11"), ("add 7 8", "15")),
    ]

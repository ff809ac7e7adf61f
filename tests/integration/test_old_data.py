"""A data directory that version 0.1.0 wrote: alice, bob, their group `team`, and bob's phone, which was
away when alice wrote to him, to the group and to open topics."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.integration.node import Node
from tests.integration.raw import RawClient

DUMPS = Path(__file__).with_name("data_0_1_0")


def test_it_is_opened_and_what_waited_is_delivered(make_node: Callable[..., Node]) -> None:
    node = make_node('topics.open=["open/#"]')
    node.data_dir.mkdir(mode=0o700)
    for dump in DUMPS.glob("*.sql"):
        connection = sqlite3.connect(node.data_dir / dump.with_suffix(".db").name)
        connection.executescript(dump.read_text(encoding="utf-8"))
        connection.close()
    node.start()
    assert [entry["content"] for entry in node.history("p:alice:bob")] == ["one"]
    with RawClient(node.port) as phone:
        assert phone.login("phone", "bob", "secret", clean=False)
        got = dict(phone.message()[:2] for _ in range(4))
    assert got.pop("open/a") == b"queued"
    assert got.pop("open/b") == b"kept"
    inbox = json.loads(got.pop("users/bob/inbox"))
    assert (inbox["content"], inbox["offset"], inbox["n"]) == ("one", 1, 1)
    group = json.loads(got.pop("groups/team"))
    assert (group["content"], group["client_msg_id"], group["n"]) == ("two", "c-1", 1)
    assert not got

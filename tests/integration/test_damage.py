"""A damaged message, in every way to read it: the entry is there, and says that its content is lost."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

from bridge.grpc_api import im_admin_pb2 as admin
from tests.integration.im import Device, devices
from tests.integration.node import DEADLINE, Node
from tests.integration.test_withheld import ways


def test_a_damaged_message_is_withheld_in_every_way(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    topic, where = f"users/{bob}/inbox", ":".join(["p", *sorted((alice, bob))])
    for name in ("phone", "back"):  # devices that are away meanwhile
        with Device(node, bob, name) as device:
            device.rpc("conversations.list")
    with devices(node, alice, each=1) as (a,):
        for text in ("one", "two", "three"):
            a.say(bob, text)
    node.stop()
    with closing(sqlite3.connect(node.data_dir / "parley.db")) as database, database:
        rubbish = "UPDATE messages SET body = CAST(substr(body, 1, 150) || x'ff00fe' AS BLOB)"
        assert database.execute(f"{rubbish} WHERE key % (1 << 32) IN (2, 3)").rowcount == 2
    node.start()
    with Device(node, bob, "phone") as phone, Device(node, bob, "back") as back:
        seen = ways(node, phone, back, where, topic)
        call = admin.TailRequest(topic=topic, after=0)
        stream = node.admin.Tail(call, metadata=node.metadata, timeout=DEADLINE)
        seen["tail"] = [json.loads(next(stream).json) for _ in range(3)]
        stream.cancel()
        seen["history of an administrator"] = node.history(where)
        entry = phone.rpc("messages.history", conversation_id=where)["messages"][1]
        assert entry["id"].isdigit()
    for way, entries in seen.items():
        if way == "list":
            (last,) = entries
            assert (last["seq"], last["withheld"], last["content"]) == (3, "damaged", None)
            continue
        shown = {entry["seq"]: (entry["content"], entry.get("withheld")) for entry in entries}
        assert shown == {1: ("one", None), 2: (None, "damaged"), 3: (None, "damaged")}, way
    assert "Traceback" not in node.log()
    assert "entry 2 of" in node.log()

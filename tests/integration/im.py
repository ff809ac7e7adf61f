"""A chat client for scenarios: what it received live, the results of its calls, and what a new sync
returns."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from broker.wire.encoder import puback
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, packet, publish, subscribe

_PINGREQ = packet(0xC0)
_numbers = itertools.count(1)

Entry = dict[str, Any]


class CallError(Exception):
    """An RPC that was answered with an error."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Device:
    """One device of a user, subscribed to all topics of the user. It reads only on request: `settle` reads
    everything the node has sent so far."""

    def __init__(self, node: Node, user: str, name: str = "phone", *, clean: bool = False) -> None:
        self.node = node
        self.user = user
        self.name = name
        self.clean = clean
        self.entries: dict[str, dict[int, Entry]] = {}
        self.events: list[dict[str, Any]] = []
        self.presences: dict[str, dict[str, Any]] = {}
        self.typing: list[dict[str, Any]] = []
        self._replies: dict[str, dict[str, Any]] = {}
        self._unnamed: list[dict[str, Any]] = []
        self._packet_ids = itertools.cycle(range(1, 60_000))
        self._acknowledged: set[int] = set()
        self.client: RawClient
        self.connect()

    # --- the connection --------------------------------------------------------------

    def connect(self) -> "Device":
        self.client = RawClient(self.node.port)
        self.client.login(f"{self.user}-{self.name}", self.user, self.credential(), clean=self.clean)
        filters = (f"users/{self.user}/#", "groups/+", "groups/+/typing", "users/+/presence")
        self.client.send(subscribe(next(self._packet_ids), *((f, 1) for f in filters)))
        self._read_until(9)
        return self

    def credential(self) -> str:
        """A password or token."""
        return password(self.user)

    def vanish(self) -> None:
        """Break the connection."""
        self.client.socket.close()

    def close(self) -> None:
        """Send DISCONNECT."""
        self.client.send(packet(0xE0))
        self.client.socket.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.socket.close()

    def _read_until(self, kind: int) -> None:
        while True:
            received = self.client.receive()
            assert received is not None, f"{self.user}'s {self.name} was disconnected"
            if received.type == 3:
                self._take(received.first, received.body)
            elif received.type == 4:
                self._acknowledged.add(int.from_bytes(received.body, "big"))
            if received.type == kind:
                return

    def _take(self, first: int, body: bytes) -> None:
        size = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        if first >> 1 & 3:
            self.client.send(puback(int.from_bytes(rest[:2], "big")))
            rest = rest[2:]
        document = json.loads(rest)
        leaf = topic.rpartition("/")[2]
        if leaf == "replies":
            if "request_id" in document:
                self._replies[document["request_id"]] = document
            else:
                self._unnamed.append(document)
        elif leaf == "events":
            document.pop("offset", None)  # of those that are kept
            self.events.append(document)
        elif leaf == "presence":
            self.presences[document["user_id"]] = document
        elif leaf == "typing":
            self.typing.append(document)
        else:
            self.entries.setdefault(topic, {})[document["offset"]] = document

    # --- what it does ----------------------------------------------------------------

    def settle(self) -> "Device":
        self.client.send(_PINGREQ)
        self._read_until(13)
        return self

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Read until `condition()` is true."""
        return wait_for(lambda: self.settle() and condition(), what)

    def rpc(self, method: str, **parameters: Any) -> Any:
        """Call a method; returns its result or raises `CallError`."""
        return self.call(method, parameters)

    def call(self, method: str, parameters: dict[str, Any]) -> Any:
        request_id = f"r{next(_numbers)}"
        request = json.dumps({"request_id": request_id} | parameters).encode()
        self.client.send(publish(f"users/{self.user}/rpc/{method}", request))
        while request_id not in self._replies:
            self._read_until(3)
        reply = self._replies.pop(request_id)
        if not reply["ok"]:
            raise CallError(reply["error"]["code"], reply["error"]["detail"])
        return reply["result"]

    def together(self, method: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Call a method several times at once; returns the replies in the order of the requests."""
        named = {f"r{next(_numbers)}": request for request in requests}
        calls = [json.dumps({"request_id": name} | request).encode() for name, request in named.items()]
        self.client.send(b"".join(publish(f"users/{self.user}/rpc/{method}", call) for call in calls))
        while not named.keys() <= self._replies.keys():
            self._read_until(3)
        return [self._replies.pop(name) for name in named]

    def raw(self, method: str, payload: bytes) -> dict[str, Any]:
        """Call with any payload that has no `request_id`; returns the reply."""
        self.client.send(publish(f"users/{self.user}/rpc/{method}", payload))
        while not self._unnamed:
            self._read_until(3)
        return self._unnamed.pop()

    def refused(self, method: str, **parameters: Any) -> str:
        """Call a method that must be refused; returns the code."""
        try:
            result = self.rpc(method, **parameters)
        except CallError as refusal:
            return refusal.code
        raise AssertionError(f"{method} {parameters} was not refused: {result}")

    def publish(self, topic: str, payload: Any) -> None:
        """Publish with QoS 1 and wait for the PUBACK."""
        data = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
        packet_id = next(self._packet_ids)
        self.client.send(publish(topic, data, 1, packet_id))
        while packet_id not in self._acknowledged:
            self._read_until(4)

    def say(self, to: str, payload: Any) -> None:
        """Publish to a user's inbox."""
        self.publish(f"users/{to}/inbox", payload)

    def post(self, group: str, payload: Any) -> None:
        """Publish to a group."""
        self.publish(f"groups/{group}", payload)

    def error(self) -> dict[str, Any]:
        """The last error event, which must be there."""
        self.settle()
        return [event for event in self.events if event["event"] == "error"][-1]

    # --- what it knows ---------------------------------------------------------------

    @property
    def inbox(self) -> list[Entry]:
        """The entries of the inbox so far, in order."""
        self.settle()
        return self.log(f"users/{self.user}/inbox")

    def log(self, topic: str) -> list[Entry]:
        return [entry for _, entry in sorted(self.entries.get(topic, {}).items())]

    def group(self, group: str) -> list[Entry]:
        self.settle()
        return self.log(f"groups/{group}")

    def told(self, kind: str, **values: Any) -> list[dict[str, Any]]:
        """Events of a kind with these values, so far."""
        self.settle()
        return [
            event
            for event in self.events
            if event["event"] == kind and all(event.get(key) == value for key, value in values.items())
        ]

    def conversation(self, conversation_id: str) -> dict[str, Any]:
        """The conversation as `conversations.list` has it."""
        found = self.rpc("conversations.list", include_hidden=True)["conversations"]
        return next(view for view in found if view["conversation_id"] == conversation_id)

    def sync(self) -> dict[str, list[Entry]]:
        """All logs from zero, as a fresh device would get them."""
        logs: dict[str, list[Entry]] = {}
        cursors = None
        while True:
            page = self.rpc("messages.sync", limit=50, **({} if cursors is None else {"cursors": cursors}))
            for entry in page["messages"]:
                logs.setdefault(_topic(entry, self.user), []).append(entry)
            if not page["more"]:
                return logs
            cursors = page["cursors"]


def _topic(entry: Entry, user: str) -> str:
    kind, _, group = entry["conversation_id"].partition(":")
    return f"groups/{group}" if kind == "g" else f"users/{user}/inbox"


def fold(entries: list[Entry]) -> list[dict[str, Any]]:
    """A log as a client shows it: each message after its edits and recalls."""
    shown: dict[str, dict[str, Any]] = {}
    for entry in entries:
        target = shown.get(entry.get("target_id", ""))
        if target is not None and entry["type"] == "edit":
            target |= {"content": entry["content"], "edited": True}
        elif target is not None and entry["type"] == "recall":
            target |= {"content": None, "recalled": True}
            for gone in ("reply_to", "mentions", "data"):
                target.pop(gone, None)
            for edit in shown.values():
                if edit["type"] == "edit" and edit.get("target_id") == entry["target_id"]:
                    edit |= {"content": None, "recalled": True}
        kept = {key: value for key, value in entry.items() if key not in ("edited_at", "recalled_at")}
        kept["edited"] = "edited_at" in entry
        kept["recalled"] = "recalled_at" in entry
        shown[entry["id"]] = kept
    return list(shown.values())


def assert_same(*devices: Device) -> None:
    """Devices received live what a fresh device syncs from zero, in each log they read."""
    for device in devices:
        device.settle()
        synced = device.sync()
        for topic, seen in device.entries.items():
            first = min(seen)
            live = fold([entry for _, entry in sorted(seen.items())])
            fresh = fold([entry for entry in synced.get(topic, []) if entry["offset"] >= first])
            assert live == fresh, f"{device.user}'s {device.name} saw another {topic} than is synced"


@contextmanager
def devices(node: Node, *users: str, each: int = 2) -> Iterator[list[Device]]:
    """Devices of users: all of the first, then all of the second..."""
    made = [Device(node, user, f"d{i}") for user in users for i in range(each)]
    try:
        yield made
    finally:
        for device in made:
            device.client.socket.close()


def private(one: str, other: str) -> str:
    """The conversation of two users."""
    return "p:" + ":".join(sorted((one, other)))


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run jobs at the same time; the first error is raised."""
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]

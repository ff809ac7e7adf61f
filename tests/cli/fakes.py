"""A node without a broker: the ports the administration stands on, kept in dictionaries."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bridge.admin import Administration
from bridge.grpc_api.server import start
from broker.domain import conversation, message
from broker.domain.errors import Refusal, StoreError
from broker.domain.message import Body, Entry, Stamped
from broker.domain.topics import Kind, parse_topic
from broker.ports import Account, DedupKey, DirectoryChange, DirectoryError, Group, Membership

TOKEN = "an-admin-token"
NOW = 1_764_000_000_000


class FakeDirectory:
    """`broker.ports.Directory`. The user `broken` makes it raise what nobody foresaw."""

    def __init__(self) -> None:
        self.users: dict[str, Account] = {}
        self.passwords: dict[str, str] = {}
        self.all_groups: dict[str, Group] = {}
        self.joined: dict[str, dict[str, Membership]] = {}

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        """Nobody listens here."""

    def _need(self, user_id: str) -> Account:
        if user_id not in self.users:
            raise DirectoryError("not_found", f"no user {user_id}")
        return self.users[user_id]

    async def account(self, user_id: str) -> Account | None:
        if user_id == "broken":
            raise ZeroDivisionError("a secret of the node")
        return self.users.get(user_id)

    async def accounts(self, after: str, limit: int) -> list[Account]:
        return [self.users[user] for user in sorted(self.users) if user > after][:limit]

    async def add_account(
        self, user_id: str, password: str | None, role: str, inbox_floor: int = 0
    ) -> Account:
        if user_id in self.users:
            raise DirectoryError("exists", f"user {user_id} exists already")
        account = Account(user_id, role, password_hash=password and "hashed", created_at=NOW)
        self.users[user_id] = account
        if password is not None:
            self.passwords[user_id] = password
        return account

    async def set_password(self, user_id: str, password: str) -> None:
        self.users[user_id] = msgspec.structs.replace(self._need(user_id), password_hash="hashed")
        self.passwords[user_id] = password

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        self.users[user_id] = msgspec.structs.replace(self._need(user_id), disabled=disabled)

    async def remove_account(self, user_id: str) -> None:
        self._need(user_id)
        del self.users[user_id]
        for members in self.joined.values():
            members.pop(user_id, None)

    async def membership(self, group_id: str, user_id: str) -> Membership | None:
        return self.joined.get(group_id, {}).get(user_id)

    async def memberships(self, user_id: str) -> list[Membership]:
        return [members[user_id] for _, members in sorted(self.joined.items()) if user_id in members]

    async def group(self, group_id: str) -> Group | None:
        found = self.all_groups.get(group_id)
        return found and msgspec.structs.replace(found, members=len(self.joined[group_id]))

    async def groups(self, after: str, limit: int) -> list[Group]:
        found = [await self.group(group) for group in sorted(self.all_groups) if group > after]
        return [group for group in found if group][:limit]

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        members = self.joined[group_id]
        return [members[user] for user in sorted(members) if user > after][:limit]

    async def create_group(
        self, group_id: str, name: str, owner: str, members: Sequence[str], joined_seq: int
    ) -> Group:
        if group_id in self.all_groups:
            raise DirectoryError("exists", f"group {group_id} exists already")
        for user in (owner, *members):
            self._need(user)
        self.all_groups[group_id] = Group(group_id, name, owner, NOW, 0)
        self.joined[group_id] = {owner: Membership(group_id, owner, "owner", joined_seq)}
        await self.add_members(group_id, members, joined_seq)
        return msgspec.structs.replace(self.all_groups[group_id], members=len(self.joined[group_id]))

    def _need_group(self, group_id: str) -> dict[str, Membership]:
        if group_id not in self.all_groups:
            raise DirectoryError("not_found", f"no group {group_id}")
        return self.joined[group_id]

    async def add_members(self, group_id: str, users: Sequence[str], joined_seq: int) -> int:
        members = self._need_group(group_id)
        for user in users:
            self._need(user)
        new = [user for user in users if user not in members]
        members.update({user: Membership(group_id, user, "member", joined_seq) for user in new})
        return len(new)

    async def remove_members(self, group_id: str, users: Sequence[str]) -> int:
        members = self._need_group(group_id)
        if self.all_groups[group_id].owner in users:
            raise DirectoryError("is_owner", f"the owner of group {group_id} stays")
        return sum(members.pop(user, None) is not None for user in users)

    async def dismiss_group(self, group_id: str) -> None:
        self._need_group(group_id)
        del self.all_groups[group_id], self.joined[group_id]


class FakeLog:
    """`broker.ports.MessageLog`; `fails` makes it fail."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Entry]] = {}
        self.changed = asyncio.Event()
        self.fails = False

    async def append(self, batch: Sequence[Stamped]) -> None:
        for stamped in batch:
            for log in (stamped.draft.conversation_id, *stamped.draft.logs):
                entries = self.logs.setdefault(log, [])
                entries.append(Entry(len(entries) + 1, stamped.body))
        self.changed.set()
        self.changed = asyncio.Event()

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        return {log: len(self.logs.get(log, ())) for log in logs}

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return self.logs.get(log, [])[after : after + limit]

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        if self.fails:
            raise StoreError("disk full")
        return self.logs.get(log, [])[: before - 1][-limit:]

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        return {}


class FakeControl:
    """`bridge.control.NodeControl`; of the rules only membership and existence are there."""

    def __init__(self, directory: FakeDirectory, log: FakeLog) -> None:
        self._directory = directory
        self._log = log
        self.sent = 0
        self.tails = 0

    async def send(self, sender: str, to: str, payload: bytes) -> Body:
        topic = parse_topic(to)
        if topic.kind is Kind.GROUP:
            if await self._directory.membership(topic.owner, sender) is None:
                raise DirectoryError("not_member", f"{sender} is not a member of group {topic.owner}")
        elif await self._directory.account(topic.owner) is None:
            raise DirectoryError("not_found", f"there is no user {topic.owner}")
        content = message.parse_payload(payload)
        if isinstance(content, Refusal):
            raise DirectoryError(content.code, content.detail)
        draft = message.draft(sender, topic, content)
        seq = len(self._log.logs.get(draft.conversation_id, ())) + 1
        self.sent += 1
        stamped = message.stamp(draft, 7000 + self.sent, seq, (), NOW)
        await self._log.append([stamped])
        return message.read_body(stamped.body)

    async def tail(self, topic: str, after: int | None) -> AsyncIterator[bytes]:
        log = conversation.log_name(parse_topic(topic))
        at = await self.head(topic) if after is None else after
        self.tails += 1
        try:
            while True:
                changed = self._log.changed
                for entry in await self._log.read(log, at, 100, 1 << 20):
                    yield entry.payload
                    at = entry.offset
                await changed.wait()
        finally:
            self.tails -= 1

    async def head(self, topic: str) -> int:
        return len(self._log.logs.get(conversation.log_name(parse_topic(topic)), ()))

    def issue_token(self, user: str, ttl: float) -> str:
        return f"token-of-{user}-for-{ttl:g}"

    def stats(self) -> dict[str, int]:
        return {"messages_stored": self.sent, "connections": 3}


class FakeNode:
    """A real gRPC server over the fakes, with a data directory as a running node keeps it."""

    def __init__(self, data_dir: Path, directory: FakeDirectory, log: FakeLog, control: FakeControl) -> None:
        self.data_dir = data_dir
        self.directory = directory
        self.log = log
        self.control = control
        self.address = ""

    @property
    def token_file(self) -> Path:
        return self.data_dir / "admin.token"

    @property
    def node_file(self) -> Path:
        return self.data_dir / "node.json"

    def write_files(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.node_file.write_text(json.dumps({"grpc": self.address, "pid": 1}))
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN + "\n")

    def say(self, sender: str, to: str, *texts: str) -> None:
        """Store messages before the node is used."""
        for text in texts:
            content: Any = message.parse_payload(text.encode())
            draft = message.draft(sender, parse_topic(to), content)
            self.control.sent += 1
            entries = self.log.logs.setdefault(draft.conversation_id, [])
            body = message.stamp(draft, 7000 + self.control.sent, len(entries) + 1, (), NOW).body
            for log in (draft.conversation_id, *draft.logs):
                stored = self.log.logs.setdefault(log, [])
                stored.append(Entry(len(stored) + 1, body))


@contextmanager
def running_node(data_dir: Path) -> Iterator[FakeNode]:
    """A node on a free port, in a thread of its own, with the users alice, bob and carol and the
    group team of the first two."""
    ready = threading.Event()
    node: FakeNode
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        nonlocal node
        directory, log = FakeDirectory(), FakeLog()
        control = FakeControl(directory, log)
        node = FakeNode(data_dir, directory, log, control)
        for user in ("alice", "bob", "carol"):
            await directory.add_account(user, "secret", "user")
        await directory.create_group("team", "The team", "alice", ["bob"], 0)
        server = await start(Administration(directory, log, control), "127.0.0.1:0", TOKEN)
        node.address = server.address
        node.write_files()
        ready.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield node
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()

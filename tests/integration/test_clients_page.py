"""The client of docs/clients.md, in both languages: its blocks are put together and used."""

import asyncio
import importlib.util
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device
from tests.integration.link import Link
from tests.integration.node import HOST, ROOT, Node, password

PAGE = (ROOT / "docs" / "clients.md").read_text()
SCRIPTS = ROOT / "tests" / "js"
SECONDS = 30.0

Shown = list[tuple[str, Any]]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def placed(text: str, node: Node, link: Link) -> str:
    """The page's program, with the addresses of this node in place of the usual ones."""
    for usual, here in (
        ("http://127.0.0.1:8080", node.http),
        ('HOST, PORT = "127.0.0.1", 1883', f'HOST, PORT = "{HOST}", {link.port}'),
        ("ws://127.0.0.1:8083/mqtt", f"ws://{HOST}:{link.port}/mqtt"),
    ):
        text = text.replace(usual, here)
    return text


class Client(Protocol):
    """A device that runs the page's client. `shown`: what it has shown."""

    shown: Shown

    async def do(self, what: str, *given: Any) -> Any:
        """Call a function of the page, or log in, come back, or end."""
        ...


class InPython:
    """The blocks in Python, in this process."""

    link_to = "port"

    def __init__(self, node: Node, link: Link, folder: Path) -> None:
        file = folder / "page.py"
        file.write_text(placed("\n\n".join(blocks("python")), node, link))
        spec = importlib.util.spec_from_file_location(f"page_{id(self)}", file)
        assert spec is not None
        assert spec.loader is not None
        self._page: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._page)
        self.shown: Shown = []
        self._chat: Any = None
        self._staying: asyncio.Task[None] | None = None

    def _show(self, kind: str, value: Any) -> None:
        self.shown.append((kind, value))

    def _stay(self, chat: Any) -> None:
        self._chat = chat
        self._staying = asyncio.create_task(self._page.stay(chat))

    async def do(self, what: str, *given: Any) -> Any:
        match what:
            case "logIn":
                self._stay(self._page.Chat(await self._page.log_in(*given), self._show))
            case "comeBack":
                self._stay(self._page.come_back(*given, self._show))
            case "state":
                return self._chat.state
            case "end":
                await self.close()
                return json.dumps(self._chat.state)
            case "tick":
                return self._page.tick(self._chat, *given)
            case _:
                name = re.sub("([A-Z])", r"_\1", what).lower()
                return await getattr(self._page, name)(self._chat, *given)
        return None

    def failure(self) -> str:
        """Why the client could not start."""
        staying = self._staying
        return str(staying.exception()) if staying is not None and staying.done() else ""

    async def close(self) -> None:
        if self._staying is not None:
            self._staying.cancel()
            await asyncio.gather(self._staying, return_exceptions=True)


class InJavaScript:
    """The blocks in JavaScript, in a process of its own."""

    link_to = "ws_port"

    def __init__(self, node: Node, link: Link, folder: Path) -> None:
        names = ", ".join(re.findall(r"^(?:async )?function (\w+)", "\n".join(blocks("js")), re.MULTILINE))
        page = folder / "page.mjs"
        page.write_text(placed("\n\n".join(blocks("js")), node, link) + f"\nexport {{ {names} }}\n")
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(SCRIPTS / "node_modules")
        self._page = page
        self.shown: Shown = []
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *("node", str(SCRIPTS / "driver.mjs"), str(self._page)), stdin=pipe, stdout=pipe, limit=1 << 26
        )
        self._reading = asyncio.create_task(self._read(process))
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            document = json.loads(line)
            if "show" in document:
                self.shown.append((document["show"], document["value"]))
            else:
                self._answers.put_nowait(document)

    async def do(self, what: str, *given: Any) -> Any:
        if self._process is None:
            self._process = await self._start()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, "with": given}).encode() + b"\n")
        async with asyncio.timeout(SECONDS):
            answer = await self._answers.get()
        assert "failed" not in answer, answer
        return answer["result"]

    def failure(self) -> str:
        """Why the client could not start: it tries again and again."""
        return "".join(of_kind(self, "offline"))

    async def close(self) -> None:
        if self._process is not None and self._reading is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
            await self._reading


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition holds."""
    deadline = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)
    return result


async def until_it(condition: Callable[[], Awaitable[Any]], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


def texts(client: Client) -> list[Any]:
    """The messages that a device has shown, in their order."""
    return [value["content"] for kind, value in client.shown if kind == "message"]


def of_kind(client: Client, kind: str) -> list[Any]:
    return [value for its_kind, value in client.shown if its_kind == kind]


@asynccontextmanager
async def closing(*clients: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for client in clients:
            await client.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [InPython, InJavaScript], ids=["python", "javascript"])
async def test_the_client_of_the_page(
    make_node: Callable[..., Node], tmp_path: Path, kind: type[InPython] | type[InJavaScript]
) -> None:
    node = await asyncio.to_thread(make_node("http.token_ttl=66").start)
    for user in ("alice", "bob"):
        node.call("AddUser", pb.AddUserRequest(user_id=user, password=password(user), role="user"))
    node.group("alice", "bob", name="team")
    with Device(node, "alice", "old", clean=True) as old, Device(node, "bob", "old", clean=True) as his:
        old.rpc("contacts.request", user_id="bob")
        his.rpc("contacts.accept", user_id="alice")
        for number in range(3):
            old.rpc("messages.send", user_id="bob", content=f"before {number}")
    folders = [tmp_path / name for name in ("alice", "bob", "again")]
    for folder in folders:
        folder.mkdir()
    with Link(getattr(node, kind.link_to)) as link:
        alice, bob, again = (kind(node, link, folder) for folder in folders)
        async with closing(alice, bob, again):
            await first_screen(alice, bob)
            await ticks_and_typing(alice, bob)
            await a_link_that_is_cut(alice, bob, link)
            await until(lambda: of_kind(bob, "renewed"), "a fresh token")
            ends = of_kind(bob, "renewed")[-1]
            assert ends > time.time() * 1000 + 55_000, "the connection goes on with the fresh token"
            await after_a_week(node, alice, bob, again)


async def first_screen(alice: Client, bob: Client) -> None:
    for client, user in ((alice, "alice"), (bob, "bob")):
        await client.do("logIn", user, password(user))
        await until(lambda client=client: of_kind(client, "online"), "the first screen")
    conversations = (await bob.do("state"))["conversations"]
    assert conversations["p:alice:bob"]["unread"] == 3
    assert conversations["p:alice:bob"]["last_message"]["content"] == "before 2"
    assert conversations["p:alice:bob"]["peer"]["user_id"] == "alice"
    assert conversations["g:team"]["group"]["name"] == "team"
    assert texts(bob) == [], "what the list has is not read again"
    older = await bob.do("history", "p:alice:bob", conversations["p:alice:bob"]["head_seq"])
    assert [each["content"] for each in older if each["type"] == "text"] == ["before 0", "before 1"]


async def ticks_and_typing(alice: Client, bob: Client) -> None:
    await alice.do("typing", "users/bob")
    await until(lambda: of_kind(bob, "typing"), "the typing notice")
    assert of_kind(bob, "typing")[0]["from_user_id"] == "alice"
    await alice.do("send", "users/bob/inbox", "hello bob")
    await until(lambda: texts(bob) == ["hello bob"] == texts(alice), "the message, at both")
    (message,) = of_kind(alice, "message")

    def ticked(how: str) -> Callable[[], Awaitable[bool]]:
        async def is_so() -> bool:
            return bool(await alice.do("tick", message) == how)

        return is_so

    await until_it(ticked("delivered"), "the second tick")
    assert (await bob.do("state"))["conversations"]["p:alice:bob"]["unread"] == 4
    await bob.do("markRead", "p:alice:bob")
    await until_it(ticked("read"), "the blue ticks")

    async def nothing_unread() -> bool:
        return (await bob.do("state"))["conversations"]["p:alice:bob"]["unread"] == 0

    await until_it(nothing_unread, "the conversation to be read")
    await alice.do("send", "groups/team", "hello team")
    await until(lambda: texts(bob)[1:] == ["hello team"], "the message in the group")
    key = await alice.do("send", "users/nobody/inbox", "is anybody there?")
    await until(lambda: of_kind(alice, "refused"), "the refusal")
    assert of_kind(alice, "refused")[0]["client_msg_id"] == key


async def a_link_that_is_cut(alice: Client, bob: Client, link: Link) -> None:
    link.down = True
    link.cut()
    await until(lambda: of_kind(alice, "offline") and of_kind(bob, "offline"), "the link to be cut")
    for number in range(5):
        await alice.do("send", "users/bob/inbox", f"offline {number}")
    link.down = False
    wanted = [f"offline {number}" for number in range(5)]
    await until(lambda: texts(bob)[2:] == wanted, "what was sent without a connection")
    for number in range(20):
        await alice.do("send", "groups/team", f"cut {number}")
        if number % 7 == 3:
            link.cut()
    await until(lambda: len(texts(bob)) >= 27 and len(texts(alice)) >= 27, "all messages")
    assert sorted(texts(bob)[7:]) == sorted(f"cut {number}" for number in range(20)), "each once"

    async def outbox_is_empty() -> bool:
        return (await alice.do("state"))["outbox"] == []

    await until_it(outbox_is_empty, "the outbox to be empty")


async def after_a_week(node: Node, alice: Client, bob: Client, again: Client) -> None:
    stored = json.loads(await bob.do("end"))
    stored["outbox"].append(["users/alice/inbox", {"content": "written on a plane", "client_msg_id": "p-1"}])
    stored["expires_at"] = 0  # the access token has ended
    for number in range(150):
        await alice.do("send", "users/bob/inbox", f"week {number}")
    await asyncio.to_thread(node.group, "alice", "bob", name="crew")
    await alice.do("send", "groups/crew", "welcome")
    await until(lambda: "welcome" in texts(alice), "the last message to be stored")
    await again.do("comeBack", json.dumps(stored))
    await until(lambda: of_kind(again, "online"), "the device to be back")
    wanted = [f"week {number}" for number in range(150)]
    await until(lambda: len(texts(again)) >= 152, "a week's messages")
    assert [text for text in texts(again) if text.startswith("week")] == wanted
    assert texts(again).count("welcome") == 1
    assert len(texts(again)) == 152, "nothing from before comes again"
    await until(lambda: "written on a plane" in texts(alice), "what was written offline")
    assert (await again.do("state"))["conversations"]["g:crew"]["group"]["name"] == "crew"
    last = next(each for each in of_kind(alice, "message") if each["content"] == "week 149")

    async def is_delivered() -> bool:
        return bool(await alice.do("tick", last) == "delivered")

    await until_it(is_delivered, "the second tick of what was synced")
    assert (await again.do("state"))["outbox"] == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [InPython, InJavaScript], ids=["python", "javascript"])
async def test_a_device_of_before_a_restore(
    make_node: Callable[..., Node], tmp_path: Path, kind: type[InPython] | type[InJavaScript]
) -> None:
    """Its cursors are within the logs, but of another generation: it does not go on from them."""
    node = await asyncio.to_thread(make_node().start)
    node.call("AddUser", pb.AddUserRequest(user_id="bob", password=password("bob"), role="user"))
    with Device(node, "bob", "old", clean=True) as old:
        old.rpc("messages.send", user_id="bob", content="a note")
    with Link(getattr(node, kind.link_to)) as link:
        devices = [kind(node, link, tmp_path) for _ in range(3)]
        bob, before, anew = devices
        async with closing(*devices):
            await bob.do("logIn", "bob", password("bob"))
            await until(lambda: of_kind(bob, "online"), "the first screen")
            stored = json.loads(await bob.do("end"))
            stored["generation"] -= 1
            await before.do("comeBack", json.dumps(stored))
            await until(lambda: "generation" in before.failure(), "the refusal")
            assert of_kind(before, "online") == []
            stored["since"] = 0
            await anew.do("comeBack", json.dumps(stored))
            await until(lambda: of_kind(anew, "online"), "the device to start again")
            assert (await anew.do("state"))["generation"] == stored["generation"] + 1


def test_both_languages_have_each_step() -> None:
    steps = PAGE.split("\n## ")[1:11]
    assert [step.split(".")[0] for step in steps] == [str(number) for number in range(1, 11)]
    for step in steps:
        assert "```python" in step
        assert "```js" in step


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()

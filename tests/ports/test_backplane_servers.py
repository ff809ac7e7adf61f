"""The kinds of addresses of Redis, and what happens when servers fail."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis

from broker.domain.errors import StoreError
from broker.ports import Head, Hint, Member, Whereabouts
from plugins.backplane.redis import RedisBackplane
from plugins.backplane.redis.options import parse_url, place
from tests.ports.backplanes import Nodes, until
from tests.servers.processes import HOST, Process, free_port
from tests.servers.redis import make_cluster, own, own_sentinel


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """What is pushed on it ends with the test."""
    with ExitStack() as stack:
        yield stack


def started(servers: ExitStack, server: Process) -> Process:
    servers.callback(server.end)
    server.start()
    return server


def port_of(url: str) -> int:
    return parse_url(url).hosts[0][1]


@asynccontextmanager
async def two_nodes(nodes: Nodes) -> AsyncIterator[None]:
    """Checks that nodes can do all that a backplane does, before and after."""
    async with nodes:
        for name in "ab":
            node = await nodes.open(name)
            await node.members.announce(Member(name, 1, "all", 1, "h", "1", {}, 1))
        await check(nodes, "before")
        yield
        await check(nodes, "after")


async def check(nodes: Nodes, word: str) -> None:
    a, b = nodes.opened
    ends, topic = nodes.ends["b"], f"users/{word}/inbox"
    b.hints.follow(topic)
    await b.hints.followed()
    a.hints.publish([Hint(topic, word.encode())])
    await until(lambda: word.encode() in ends.bodies, 20)
    a.mail.send("b", "note", word.encode())
    await until(lambda: ("a", word.encode()) in ends.mail)
    await a.turns.take([[word, "other"]])
    a.turns.give_back({word: Head(3, 2, 1), "other": None})
    taken = await b.turns.take([[word, "other"]])
    if not all(taken.granted):
        await b.turns.freed()
        taken = await b.turns.take([[word, "other"]])
    assert (taken.granted, taken.heads) == ([True], {word: Head(3, 2, 1)})
    b.turns.give_back(dict.fromkeys([word, "other"]))
    await a.devices.connected(word, Whereabouts("phone", "a", "c1", 1))
    assert await b.devices.of([word]) == {word: [Whereabouts("phone", "a", "c1", 1)]}
    assert await a.devices.disconnected(word, "phone", "c1") == 0
    assert {each.name for each in await b.members.all() or ()} == {"a", "b"}


# --- addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://h", "the scheme 'http' is none of redis, rediss, redis+sentinel"),
        ("redis://:secret@h:1,g:2", "several servers need redis+sentinel:// or redis+cluster://"),
        ("redis://:secret@h:x", "'h:x' is no host:port"),
        ("redis://:secret@h/zero", "names no database"),
        ("redis+sentinel://:secret@h:1", "the name of the service is missing"),
        ("redis+cluster://h/3", "a cluster has the database 0 only"),
        ("redis://:secret@127.0.0.1:9", "127.0.0.1:9"),
        ("redis+sentinel://:secret@127.0.0.1:9/s", "127.0.0.1:9"),
        ("redis+cluster://:secret@127.0.0.1:9", "127.0.0.1:9"),
    ],
)
async def test_what_cannot_be_connected_to_is_one_clear_line(url: str, reason: str) -> None:
    with pytest.raises(StoreError) as raised:
        await Nodes(url).open("a")
    text = str(raised.value)
    assert text.startswith(f"cluster.url: {place(url)}: ")
    assert reason in text
    assert "secret" not in text
    assert "\n" not in text


def test_the_parts_of_a_url() -> None:
    address = parse_url("rediss+sentinel://bob:p%40ss@one:1,two,[::1]:3/my%20service/4")
    assert (address.kind, address.tls, address.service, address.database) == (
        "sentinel",
        True,
        "my service",
        4,
    )
    assert address.hosts == [("one", 1), ("two", 26379), ("::1", 3)]
    assert (address.user, address.password) == ("bob", "p@ss")


async def test_passwords_and_users(tmp_path: Path, servers: ExitStack) -> None:
    rules = ("--user", "im", "on", ">word", "~*", "&*", "+@all", "--requirepass", "secret")
    server, url = own(tmp_path, *rules, password="secret")
    started(servers, server)
    for login in (":secret@", "im:word@"):
        async with two_nodes(Nodes(url.replace("//", f"//{login}") + "/3")):
            pass
    for login in ("", ":wrong-word@", "im:wrong-word@"):
        with pytest.raises(StoreError, match=r"cluster.url: redis://127.0.0.1.*(assword|uthentica)") as error:
            await Nodes(url.replace("//", f"//{login}")).open("a")
        assert "wrong-word" not in str(error.value)


async def test_tls_with_a_certificate_of_its_own(tmp_path: Path, servers: ExitStack) -> None:
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -days 2 "
    names = ["-addext", f"subjectAltName=IP:{HOST}", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, [*make.split(), *names], check=True, capture_output=True)
    tls = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    server, _ = own(tmp_path, *tls, "--tls-auth-clients", "no")
    started(servers, server)
    async with two_nodes(Nodes(f"rediss://{HOST}:{port}", tls_ca=str(certificate))):
        pass
    with pytest.raises(StoreError, match="certificate verify failed"):
        await Nodes(f"rediss://{HOST}:{port}").open("a")
    with pytest.raises(StoreError, match="No such file"):
        await Nodes(f"rediss://{HOST}:{port}", tls_ca="missing.pem").open("a")


# --- faults -------------------------------------------------------------------------------


async def test_hints_of_the_time_without_redis_come_when_it_is_back(
    tmp_path: Path, servers: ExitStack
) -> None:
    """It is killed, and starts again empty."""
    server, url = own(tmp_path)
    started(servers, server)
    nodes = Nodes(url)
    async with two_nodes(nodes):
        a, b = nodes.opened
        ends = nodes.ends["b"]
        b.hints.follow("t")
        b.hints.follow("late/#")
        await b.hints.followed()
        await a.devices.connected("alice", Whereabouts("phone", "a", "c1", 1))
        server.kill()
        await until(lambda: ends.story == ["broken"])
        a.hints.publish([Hint("t", b"1")])
        b.hints.follow("later")
        b.hints.unfollow("late/#")
        a.hints.publish([Hint("later", b"2"), Hint("late/x", b"not followed any more"), Hint("t", b"3")])
        async with asyncio.timeout(1):
            assert (await a.turns.take([["x"], ["y", "x"]])).granted == [True, True]
            assert await a.mail.ask("b", "q", b"", 60) is None
            await b.hints.followed()
        server.start()
        await until(lambda: ends.story == ["broken", "returned"])
        await until(lambda: len(ends.hints) >= 4)  # with that of `two_nodes`
        assert sorted(ends.bodies[1:]) == [b"1", b"2", b"3"]
        assert [hint.body for hint in ends.hints if hint.topic == "t"] == [b"1", b"3"]
        await wait_for_user(nodes, "alice")
        for node in nodes.opened:
            await node.members.beat()


async def test_a_redis_that_stands_still_for_3_seconds(tmp_path: Path, servers: ExitStack) -> None:
    """What was written to it meanwhile is there once and in order, all the same."""
    server, url = own(tmp_path)
    started(servers, server)
    nodes = Nodes(url, timeout=1.0)
    async with two_nodes(nodes):
        a, b = nodes.opened
        ends = nodes.ends["b"]
        b.hints.follow("t")
        await b.hints.followed()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for number in range(30):
                a.hints.publish([Hint("t", b"%d" % number)])
                async with asyncio.timeout(2):  # the first notices, and all others go on at once
                    await a.turns.take([["x"]])
                await asyncio.sleep(0.1)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await until(lambda: b"29" in ends.bodies)
        assert ends.bodies[1:] == [b"%d" % number for number in range(30)]
        assert ends.story == ["broken", "returned"]


async def test_too_many_hints_for_an_absent_redis_are_the_last_of_each_topic(
    tmp_path: Path, servers: ExitStack
) -> None:
    server, url = own(tmp_path)
    started(servers, server)
    nodes = Nodes(url)
    async with two_nodes(nodes):
        a, b = nodes.opened
        ends = nodes.ends["b"]
        for topic in ("t", "u"):
            b.hints.follow(topic)
        await b.hints.followed()
        server.kill()
        await until(lambda: ends.story == ["broken"] == nodes.ends["a"].story)
        a.hints.publish([Hint("u", b"u")])
        for number in range(40):
            a.hints.publish([Hint("t", b"%d" % number + bytes(1_000_000))])
            await asyncio.sleep(0)
        server.start()
        await until(lambda: b"u" in ends.bodies and any(body[:2] == b"39" for body in ends.bodies))
        assert len(ends.hints) < 25
        assert nodes.dropped["a"]["hint_not_sent"] > 15
        for node in nodes.opened:
            await node.members.beat()


async def beats(node: RedisBackplane) -> None:
    """The node says that it lives. During a fail-over the sentinels may name no server for a moment."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await node.members.beat()
        except redis.RedisError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_the_sentinels_say_where_the_server_is(tmp_path: Path, servers: ExitStack) -> None:
    """One dies, and the other takes over."""
    first, url = own(tmp_path, "--requirepass", "pw", "--masterauth", "pw", password="pw")
    started(servers, first)
    replica = ("--replicaof", f"{HOST} {port_of(url)}", "--requirepass", "pw", "--masterauth", "pw")
    second, second_url = own(tmp_path, *replica, password="pw")
    started(servers, second)
    sentinel, port = own_sentinel(tmp_path, port_of(url), "chat", "pw")
    started(servers, sentinel)
    await until(lambda: replicas_of(port) == 1, 20)
    nodes = Nodes(f"redis+sentinel://:pw@{HOST}:{free_port()},{HOST}:{port}/chat/0", timeout=1.0)
    async with two_nodes(nodes):
        first.kill()
        with redis.Redis(HOST, port) as client:
            await until(lambda: client.sentinel_get_master_addr_by_name("chat")[1] == port_of(second_url), 20)
        await until(lambda: all(node.is_connected for node in nodes.opened), 20)
        await until(lambda: nodes.ends["b"].story == ["broken", "returned"], 20)
        for node in nodes.opened:
            await beats(node)
    with pytest.raises(StoreError, match=r"knows no service 'nothing'|No master found"):
        await Nodes(f"redis+sentinel://:pw@{HOST}:{port}/nothing").open("a")


async def test_a_cluster_of_three(tmp_path: Path, servers: ExitStack) -> None:
    """The second node is told of one server only, and finds the others."""
    urls = []
    for _ in range(3):
        bus = ("--cluster-port", str(free_port()))  # else port + 10000, where the system may have something
        server, url = own(tmp_path, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *bus)
        started(servers, server)
        urls.append(url)
    ports = [port_of(url) for url in urls]
    await asyncio.to_thread(make_cluster, tmp_path, ports)
    nodes = Nodes(f"redis+cluster://{HOST}:{ports[1]}")
    async with two_nodes(nodes):
        a, b = nodes.opened
        users = [f"user-{number}" for number in range(50)]
        for user in users:
            await a.devices.connected(user, Whereabouts("phone", "a", "c1", 1))
        assert sorted(await b.devices.of(users) or ()) == sorted(users)
        assert (await a.turns.take([users])).granted == [True]
        assert (await b.turns.take([users[:1]])).granted == [False]
        a.turns.give_back({user: Head(1) for user in users})
        await b.turns.freed()
        assert (await b.turns.take([users[:1]])).granted == [True]


def replicas_of(port: int) -> int:
    with redis.Redis(HOST, port) as client:
        return len(client.sentinel_slaves("chat"))


async def wait_for_user(nodes: Nodes, user: str) -> None:
    for _ in range(500):
        if user in (await nodes.opened[0].devices.of([user]) or ()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{user} is not known again")

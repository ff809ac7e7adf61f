"""Hints and mail over Redis."""

import asyncio
import random
from functools import partial

import msgspec
import redis

from broker.domain.topics import matches
from broker.ports import Hint
from plugins.backplane.redis.frames import VERSION
from tests.ports.backplanes import Nodes, until
from tests.servers.redis import server_url


async def test_those_that_follow_a_topic_get_its_hints_in_order() -> None:
    async with Nodes() as nodes:
        a, b, c = [await nodes.open(name) for name in "abc"]
        for node in (a, b):
            node.hints.follow("users/bob/inbox")
            await node.hints.followed()
        for number in range(0, 100, 2):
            a.hints.publish([Hint("users/bob/inbox", b"%d" % n) for n in (number, number + 1)])
            a.hints.publish([Hint("users/carol/inbox", b"not followed")])
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(nodes.ends["b"].hints) == 100)
        assert nodes.ends["b"].bodies == [b"%d" % n for n in range(100)]
        assert nodes.ends["a"].hints == []  # its own
        assert nodes.ends["c"].hints == []
        c.mail.send("a", "note", b"")


async def test_a_hint_comes_once_however_many_filters_match_it() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for each in ("home/+/x", "home/k/x", "home/#", "#", "+/k/+"):
            b.hints.follow(each)
        await b.hints.followed()
        a.hints.publish([Hint("home/k/x", b"1"), Hint("home/k/x", b"2"), Hint("home", b"3")])
        a.hints.publish([Hint("last", b"4")])
        await until(lambda: b"4" in nodes.ends["b"].bodies)
        assert nodes.ends["b"].bodies == [b"1", b"2", b"3", b"4"]


async def test_a_filter_matches_as_in_mqtt_whatever_a_topic_is_made_of() -> None:
    chance = random.Random(1)
    levels = ["a", "b", "*", "?", "[a]", "\\", "", "a b", "é"]
    topics = {"/".join(chance.choices(levels, k=chance.randint(1, 3))) for _ in range(80)} - {""}
    filters = ["a/+", "+/*", "+", "a/#", "[a]/#", "\\/+", "+/+/a", "/+", "?/+", "#"]
    async with Nodes(prefix="te[s]t*:") as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for each in filters:
            b.hints.follow(each)
            await b.hints.followed()
            a.hints.publish([Hint(topic, topic.encode()) for topic in topics])
            a.mail.send("b", "note", each.encode())
            await until(partial(nodes.ends["b"].mail.__contains__, ("a", each.encode())))
            got = sorted(hint.topic for hint in nodes.ends["b"].hints)
            assert got == sorted(topic for topic in topics if matches(each, topic)), each
            nodes.ends["b"].hints.clear()
            b.hints.unfollow(each)
        assert b.hints._filters == {}


async def test_filters_of_one_pattern_are_left_one_by_one() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for each in ("#", "+"):
            b.hints.follow(each)
        b.hints.unfollow("+")
        await b.hints.followed()
        a.hints.publish([Hint("one", b"1"), Hint("one/two", b"2")])
        await until(lambda: len(nodes.ends["b"].hints) == 2)
        b.hints.unfollow("#")
        await b.hints.followed()
        a.hints.publish([Hint("one", b"3")])
        a.mail.send("b", "note", b"later")
        await until(lambda: nodes.ends["b"].mail != [])
        assert nodes.ends["b"].bodies == [b"1", b"2"]


async def test_a_topic_is_followed_and_left_as_it_was_said_last() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for _ in range(3):
            b.hints.follow("t")
            b.hints.unfollow("t")
        b.hints.follow("t")
        await b.hints.followed()
        a.hints.publish([Hint("t", b"1")])
        await until(lambda: nodes.ends["b"].bodies == [b"1"])


async def test_100_000_topics_are_followed_in_time() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for number in range(100_000):
            b.hints.follow(f"users/{number}/inbox")
        async with asyncio.timeout(20):
            while b._listener._answered < b._listener._asked:
                await b.hints.followed()
        b._listener.wire.give_up()
        await until(lambda: nodes.ends["b"].story == ["broken", "returned"], 20)
        a.hints.publish([Hint("users/99999/inbox", b"1")])
        await until(lambda: nodes.ends["b"].bodies == [b"1"])


async def test_mail_goes_to_a_node_or_to_all_others() -> None:
    async with Nodes() as nodes:
        a, b, c = [await nodes.open(name) for name in "abc"]
        for number in range(20):
            a.mail.send("b", "note", b"%d" % number)
        a.mail.send(None, "note", b"all")
        b.mail.send(None, "note", b"from b")
        await until(lambda: len(nodes.ends["b"].mail) == 21 and len(nodes.ends["c"].mail) == 2)
        assert nodes.ends["b"].mail == [*(("a", b"%d" % n) for n in range(20)), ("a", b"all")]
        assert nodes.ends["a"].mail == [("b", b"from b")]
        c.mail.send("b", "unheard of", b"")
        await until(lambda: nodes.dropped["b"]["mail_of_unknown_kind"] == 1)


async def test_questions_are_answered_or_not_in_time() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")

        async def answer(node: str, body: bytes) -> bytes:
            return node.encode() + b":" + body

        async def never(_node: str, _body: bytes) -> bytes:
            await asyncio.sleep(60)
            return b""

        async def fails(_node: str, _body: bytes) -> bytes:
            raise ValueError("a bug")

        b.mail.on_question("q", answer)
        b.mail.on_question("slow", never)
        b.mail.on_question("bug", fails)
        answers = await asyncio.gather(*(a.mail.ask("b", "q", b"%d" % n, 5) for n in range(50)))
        assert answers == [b"a:%d" % n for n in range(50)]
        assert await a.mail.ask("b", "slow", b"", 0.05) is None
        assert await a.mail.ask("b", "bug", b"", 0.05) is None
        assert a.mail._questions == {}
        async with asyncio.timeout(2):
            assert await a.mail.ask("nobody", "q", b"", 60) is None  # nobody has got it


async def test_a_newer_release_is_understood_as_far_as_possible() -> None:
    """Fields may be added. A value of another version is counted."""
    async with Nodes() as nodes:
        await nodes.open("b")
        b = nodes.opened[0]
        b.hints.follow("t")
        await b.hints.followed()
        encode = msgspec.msgpack.encode
        prefix = nodes.options.prefix
        letter = {"kind": "note", "body": b"hello", "urgent": True}
        with redis.Redis.from_url(server_url()) as client:
            client.publish(f"{prefix}t:t", VERSION + encode(["newer", 1, [b"1"], {"added": "later"}]))
            client.publish(f"{prefix}t:t", b"\x02" + encode({"all": "new"}))
            client.publish(f"{prefix}t:t", b"garbage")
            client.publish(f"{prefix}t:t", b"")
            client.publish(
                f"{prefix}message:b", VERSION + encode({"node": "c", "batch": [letter], "added": 1})
            )
            client.publish(f"{prefix}message:b", b"\x02" + encode({"mail": []}))
            client.publish(f"{prefix}message:*", b"garbage")
            client.publish(f"{prefix}t:\xff".encode("latin-1"), b"no text")
            client.publish(f"{prefix}t:t", VERSION + encode(["newer", 2, [b"2"]]))
        await until(lambda: len(nodes.ends["b"].hints) == 2)
        assert nodes.ends["b"].bodies == [b"1", b"2"]
        assert nodes.ends["b"].mail == [("c", b"hello")]
        assert nodes.dropped["b"] == {"hint_unreadable": 3, "mail_unreadable": 2}

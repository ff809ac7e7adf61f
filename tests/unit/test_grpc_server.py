"""Calls over gRPC: how they map to operations, and how they fail."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api.admission import SLOT_BYTES
from bridge.grpc_api.guard import host_of
from bridge.grpc_api.tls import CertificateError, read_tls
from tests.unit.grpc_kit import ADMIN, INVALID, TinyNode, failure, tiny_node, until

# --- what a call is turned into ----------------------------------------------------------


async def test_parameters_and_results() -> None:
    async with tiny_node() as node:
        request = pb.SendRequest(
            group_id="team",
            type="image",
            content=b'{"url": "x"}',
            client_msg_id="c-1",
            reply_to="5",
            mentions=b'["bob"]',
            data=b'{"order": 7}',
            traceparent="00-1-2-01",
        )
        sent = await node.call("MessageService/SendMessage", request, "token-of-alice")
        assert (sent.conversation_id, sent.seq, sent.created_at) == ("alice False", 7, 2**53)
        assert json.loads(sent.id) == {
            "user_id": None,
            "group_id": "team",
            "type": "image",
            "content": {"url": "x"},
            "client_msg_id": "c-1",
            "reply_to": "5",
            "mentions": ["bob"],
            "data": {"order": 7},
            "traceparent": "00-1-2-01",
        }
        bare = await node.call("MessageService/SendMessage", pb.SendRequest(user_id="bob", content=b'"hi"'))
        assert bare.conversation_id == "system True"
        assert json.loads(bare.id) == {
            "user_id": "bob",
            "group_id": None,
            "type": "text",
            "content": "hi",
            "client_msg_id": None,
            "reply_to": None,
            "mentions": None,
            "data": None,
            "traceparent": None,
        }


def rich_details(error: Any) -> pb.Status:
    return pb.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


@pytest.mark.parametrize(
    ("request_", "status", "code", "words"),
    [
        (pb.SendRequest(user_id="nobody", content=b"1"), "NOT_FOUND", "not_found", "no user nobody"),
        (pb.SendRequest(user_id="disk", content=b"1"), "UNAVAILABLE", "unavailable", "the store failed"),
        (pb.SendRequest(user_id="broken", content=b"1"), "INTERNAL", "internal", "internal error"),
        (pb.SendRequest(user_id="bob"), "INVALID_ARGUMENT", "invalid_params", "content: not valid JSON"),
        (pb.SendRequest(user_id="bob", content=b"{"), "INVALID_ARGUMENT", "invalid_params", "content: not"),
        (pb.SendRequest(user_id="bob", content=b"\xff"), "INVALID_ARGUMENT", "invalid_params", "content"),
        (pb.SendRequest(user_id="b b", content=b"1"), "INVALID_ARGUMENT", "invalid_params", "user_id"),
        (
            pb.SendRequest(user_id="bob", content=b"1", mentions=b'"every"'),
            "INVALID_ARGUMENT",
            "invalid_params",
            "mentions",
        ),
    ],
)
async def test_failures(request_: pb.SendRequest, status: str, code: str, words: str) -> None:
    async with tiny_node() as node:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.call("MessageService/SendMessage", request_)
        got = failure(raised.value)
        assert got[:2] == (grpc.StatusCode[status], code)
        assert words in got[2]
        assert "secret" not in got[2]
        rich = rich_details(raised.value)
        assert (rich.code, rich.message) == (grpc.StatusCode[status].value[0], got[2])
        assert rich.details[0].type_url == "type.googleapis.com/google.rpc.ErrorInfo"
        assert (rich.details[0].value.reason, rich.details[0].value.domain) == (code, "parley")


async def test_bytes_that_are_no_request(caplog: pytest.LogCaptureFixture) -> None:
    async with tiny_node() as node:
        metadata = (("authorization", f"Bearer {ADMIN}"),)
        for data in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await node.raw("MessageService/SendMessage", data, metadata)
            assert failure(raised.value)[:2] == (INVALID, "invalid_params")
    assert "Traceback" not in caplog.text


# --- deadlines, and how much at once -----------------------------------------------------


def send(text: str) -> pb.SendRequest:
    return pb.SendRequest(user_id="bob", content=json.dumps(text).encode())


async def deadline_passes(node: TinyNode, text: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await node.call("MessageService/SendMessage", send(text), timeout=2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_what_has_begun_ends_and_what_waits_past_its_deadline_does_not_begin() -> None:
    async with tiny_node(concurrency=1) as node:
        node.gate.clear()
        calls = [asyncio.ensure_future(deadline_passes(node, "one")) for _ in range(2)]
        await until(lambda: (node.begun, node.waiting) == (["one"], 1))
        await asyncio.gather(*calls)
        await until(lambda: node.waiting == 0)  # the server has a clock of its own
        third = asyncio.ensure_future(node.call("MessageService/SendMessage", send("three")))
        assert (node.begun, node.ended) == (["one"], [])
        node.gate.set()
        await third
        assert (node.begun, node.ended) == (["one", "three"], ["one", "three"])


async def test_more_calls_than_may_wait_are_refused() -> None:
    async with tiny_node(concurrency=1) as node:
        node.gate.clear()
        calls = [
            asyncio.ensure_future(node.call("MessageService/SendMessage", send(str(i)))) for i in range(25)
        ]
        await until(lambda: sum(call.done() for call in calls) == 8)
        for call in calls:
            if call.done():
                status, code, _ = failure(call.exception())
                assert (status, code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
        node.gate.set()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, pb.SentMessage) for each in done) == 17


async def test_one_user_leaves_room_for_others() -> None:
    async with tiny_node(concurrency=4) as node:
        node.gate.clear()

        def call(text: str, token: str) -> asyncio.Future[Any]:
            return asyncio.ensure_future(node.call("MessageService/SendMessage", send(text), token))

        of_alice = [call("alice", "token-of-alice") for _ in range(1 + 16 + 1)]
        await until(lambda: any(call.done() for call in of_alice))
        (refused,) = (call for call in of_alice if call.done())
        assert failure(refused.exception())[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
        others = [call("bob", "token-of-bob"), call("root", ADMIN)]
        await until(lambda: len(node.begun) == 3)
        assert set(node.begun) == {"alice", "bob", "root"}
        node.gate.set()
        await asyncio.gather(*others)
        await asyncio.wait(of_alice)


async def test_a_user_has_so_many_calls_in_progress() -> None:
    async with tiny_node(concurrency=8, calls_per_user=5) as node:
        node.gate.clear()

        def call(text: str, token: str) -> asyncio.Future[Any]:
            return asyncio.ensure_future(node.call("MessageService/SendMessage", send(text), token))

        of_alice = [call("alice", "token-of-alice") for _ in range(9)]
        await until(lambda: sum(call.done() for call in of_alice) == 4)
        for refused in (call for call in of_alice if call.done()):
            assert failure(refused.exception())[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
        assert node.limited == {"calls_per_user": 4}
        others = [call("bob", "token-of-bob"), *(call("root", ADMIN) for _ in range(9))]
        await until(lambda: len(node.begun) == 8)
        node.gate.set()
        await asyncio.gather(*others)
        await asyncio.wait(of_alice)
        assert (await call("again", "token-of-alice")) is not None


async def test_users_who_are_too_fast_take_no_place_of_others() -> None:
    async with tiny_node(concurrency=2) as node:
        node.logs.pace_open.clear()
        tokens = ("token-of-alice", "token-of-bob")
        slow = [asyncio.ensure_future(node.call("MessageService/SendMessage", send("x"), t)) for t in tokens]
        await until(lambda: sorted(node.logs.paced) == ["alice", "bob"])
        async with asyncio.timeout(5):
            await node.call("MessageService/SendMessage", send("root"), ADMIN)
        assert node.begun == ["root"]
        node.logs.pace_open.set()
        await asyncio.gather(*slow)


async def test_a_large_request_takes_the_place_of_many() -> None:
    async with tiny_node(concurrency=4) as node:
        node.gate.clear()
        text = "x" * 2 * SLOT_BYTES

        def begin() -> asyncio.Future[Any]:
            return asyncio.ensure_future(node.call("MessageService/SendMessage", send(text)))

        calls = [begin()]
        await until(lambda: len(node.begun) == 1)
        calls += [begin(), begin()]
        await until(lambda: node.waiting == 6)
        assert len(node.begun) == 1
        calls[2].cancel()
        await until(lambda: node.waiting == 3)
        node.gate.set()
        await asyncio.wait(calls)
        assert len(node.ended) == 2
        await until(lambda: not node.server._guard._admission._lines)  # nothing is kept of callers


async def test_stop_lets_calls_end() -> None:
    async with tiny_node() as node:
        node.gate.clear()
        call = asyncio.ensure_future(deadline_passes(node, "one"))
        await until(lambda: node.begun == ["one"])
        await call
        stopping = asyncio.ensure_future(node.server.stop(0))
        node.gate.set()
        await stopping
        assert node.ended == ["one"]


# --- TLS ---------------------------------------------------------------------------------


def test_tls_that_is_not_to_be_had(tmp_path: Path) -> None:
    assert read_tls(None, None) is None
    absent, empty = str(tmp_path / "absent.pem"), tmp_path / "empty.pem"
    empty.write_text("nothing")
    for cert, key, words in (
        (absent, None, "grpc.tls_key: not set"),
        (None, absent, "grpc.tls_cert: not set"),
        (absent, str(empty), f"grpc.tls_cert: cannot read {absent}: No such file"),
        (str(empty), absent, f"grpc.tls_key: cannot read {absent}: No such file"),
        (str(empty), str(empty), "are not a certificate and its key"),
        (str(tmp_path), str(empty), "Is a directory"),
        ("\0", str(empty), "grpc.tls_cert: cannot read"),
    ):
        with pytest.raises(CertificateError) as raised:
            read_tls(cert, key)
        assert words in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv6:[::1]:5000", "::1"),
        ("unix:", ""),
    ],
)
def test_the_address_in_grpcs_name_of_a_client(peer: str, host: str) -> None:
    assert host_of(peer) == host

"""What a message may carry besides its content: unknown fields, the app's own data, the trace context."""

import json

import pytest

from broker.domain.errors import ReasonCode, Refusal
from broker.domain.json_limits import MAX_DEPTH
from broker.domain.message import (
    MAX_DATA,
    client_msg_id_of,
    draft,
    parse_payload,
    read_body,
    says_the_same,
    stamp,
)
from tests.unit.message_kit import (
    INBOX,
    accepted,
    delivered,
)

# --- unknown fields, the app's own data, the trace context ----------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b'{"content": "x", "extra": 1}', "extra"),
        (b'{"extra": {"content": 2}, "content": "x"}', "extra"),
        (b'{"content": "x", "client_msg_Id": "c-1"}', "client_msg_Id"),
        (b'{"content": "x", "mention": "all"}', "mention"),
        (b'{"content": "x", "id": "5"}', "id"),
        (b'{"content": "x", "": null}', ""),
    ],
)
def test_an_unknown_field_is_refused_by_its_name(payload: bytes, field: str) -> None:
    refusal = parse_payload(payload)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.reason_code) == ("invalid_payload", ReasonCode.PAYLOAD_FORMAT_INVALID)
    assert f"`{field}`" in refusal.detail


@pytest.mark.parametrize("data", [b"{}", b'{"a": 1}', b'{ "a":[1e999, 12345678901234567890123] }'])
def test_data_is_kept_as_it_was_written(data: bytes) -> None:
    content = accepted(b'{"content": "x", "data": %b}' % data)
    assert bytes(content.data) == data
    stamped = stamp(draft("alice", INBOX, content), 1, 1, (1, 1), 1)
    assert b'"data":' + data in stamped.body
    assert bytes(read_body(stamped.body).data) == data


@pytest.mark.parametrize("payload", [b"x", b'{"content": "x"}', b'{"content": "x", "data": null}'])
def test_without_data_there_is_no_such_field(payload: bytes) -> None:
    content = accepted(payload)
    assert "data" not in delivered(content)
    assert "traceparent" not in delivered(content)
    assert read_body(stamp(draft("alice", INBOX, content), 1, 1, (1, 1), 1).body).data == content.data


@pytest.mark.parametrize("data", [b"5", b'"text"', b"[]", b"true", b"[{}]"])
def test_data_must_be_an_object(data: bytes) -> None:
    refusal = parse_payload(b'{"content": "x", "data": %b}' % data)
    assert isinstance(refusal, Refusal)
    assert refusal.detail == "data must be a JSON object"


def test_data_is_bounded() -> None:
    most = b'{"a":"' + b"x" * (MAX_DATA - 8) + b'"}'
    assert len(most) == MAX_DATA
    assert bytes(accepted(b'{"content": "x", "data": %b}' % most).data) == most
    refusal = parse_payload(b'{"content": "x", "data": %b }' % most.replace(b"x", b"xx", 1))
    assert isinstance(refusal, Refusal)
    assert "at most 4096 bytes" in refusal.detail


@pytest.mark.parametrize("name", ["content", "data"])
def test_neither_may_be_nested_too_deeply(name: str) -> None:
    deep = '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1)
    fields = {"content": '"x"', "data": "{}"} | {name: deep}
    refusal = parse_payload(("{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}").encode())
    assert isinstance(refusal, Refusal)
    assert refusal.detail.startswith(f"{name}: nested deeper")


def test_a_traceparent_is_kept() -> None:
    content = accepted(json.dumps({"content": "x", "traceparent": TRACE}).encode())
    assert delivered(content)["traceparent"] == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        TRACE.upper(),
        TRACE[:-1],
        f"{TRACE}0",
        f"{TRACE}\n",
        f"ff{TRACE[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        TRACE.replace("-", "_"),
    ],
)
def test_other_traceparents_are_refused(traceparent: str) -> None:
    """W3C Trace Context, 3.2."""
    refusal = parse_payload(json.dumps({"content": "x", "traceparent": traceparent}).encode())
    assert isinstance(refusal, Refusal)
    assert refusal.detail.startswith("traceparent must be")


@pytest.mark.parametrize(
    ("again", "same"),
    [
        (b'{"content": "x", "data": {"b": 2,  "a": 1}}', True),
        (b'{"content": "x", "data": {"a": 1, "b": 3}}', False),
        (b'{"content": "x"}', False),
        (b'{"content": "x", "data": {"a": 1, "b": 2}, "traceparent": "%b"}' % TRACE.encode(), True),
    ],
)
def test_a_repeat_has_the_same_data_and_any_traceparent(again: bytes, same: bool) -> None:
    first = accepted(b'{"content": "x", "data": {"a": 1, "b": 2}}')
    body = read_body(stamp(draft("alice", INBOX, first), 1, 1, (1, 1), 1).body)
    assert says_the_same(body, accepted(again)) is same


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"content":"x","client_msg_id":"c-1"}', "c-1"),
        (b'{"client_msg_id":"c-1","content":"x","extra":1}', "c-1"),
        (b'{"content":"x","client_msg_id":"c-1","type":5}', "c-1"),
        (b'{"content":' + b"[" * 500 + b"]" * 500 + b',"client_msg_id":"c-1"}', "c-1"),
        (b'{"content":"x","client_msg_id":5}', None),
        (b'{"content":"x","client_msg_id":""}', None),
        (b'{"content":"x","client_msg_id":"' + b"c" * 65 + b'"}', None),
        (b'{"client_msg_id":"c-1"}', None),
        (b'{"content":"x","client_msg_id":"c-1"', None),
        (b'{"content":' + b"[" * 100_000 + b"]" * 100_000 + b',"client_msg_id":"c-1"}', None),
        (b"hello", None),
        (b"", None),
    ],
)
def test_the_id_of_a_payload_that_is_refused(payload: bytes, found: str | None) -> None:
    assert client_msg_id_of(payload) == found

"""From the published payload to the message that readers get (docs/api.md, "A message")."""

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.errors import ReasonCode, Refusal
from broker.domain.json_limits import MAX_DEPTH, MAX_DIGITS
from broker.domain.message import (
    Content,
    Entry,
    draft,
    parse_payload,
    read_body,
    stamp,
    with_offset,
)
from tests.unit.message_kit import (
    GROUP,
    INBOX,
    accepted,
    delivered,
    raw,
    same,
)

# --- what is a message, and what is the content itself --------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        "grüße, 漢字 🎉".encode(),
        b"a\0b",
        b'"a string"',
        b"42",
        b"null",
        b"[1, 2]",
        b'[{"content": 1}]',
        b"{",
        b"{}",
        b"{curly but no JSON}",
        b'{"content": "cut off',
        b'{"content": 1} and more',
        b'{"content": 1}{"content": 2}',
        b'{"content": }',
        b'{"content": 01}',
        b'{"content": NaN}',
        b"{'content': 1}",
        b'{"content": "a\nb"}',
        b'{"content": "\\x"}',
        b'{"content": [1,]}',
        b'{"Content": 1}',
        b'{"text": "no content", "type": 5, "mentions": 7}',
        b'{"a": {"content": 1}}',
        b'\xef\xbb\xbf{"content": 1}',
        b'\xc2\xa0{"content": 1}',
    ],
)
def test_text_is_the_content_itself(payload: bytes) -> None:
    content = accepted(payload)
    assert json.loads(bytes(content.content)) == payload.decode()
    assert content.type == "text"
    assert (content.client_msg_id, content.reply_to, content.mentions) == (None, None, None)
    assert delivered(content)["content"] == payload.decode()


@pytest.mark.parametrize(
    "payload", [b"\xff", b"\x00\x80", b"\xed\xa0\x80", b'{"content": "\xff"}', b"\xc0\x80"]
)
def test_other_bytes_are_binary(payload: bytes) -> None:
    content = accepted(payload)
    assert content.type == "binary"
    assert base64.b64decode(json.loads(bytes(content.content))) == payload


@given(st.binary(max_size=200))
def test_any_payload_is_answered_and_its_message_is_json(payload: bytes) -> None:
    content = parse_payload(payload)
    if isinstance(content, Content):
        assert delivered(content)["from_user_id"] == "alice"
    else:
        assert content.code == "invalid_payload"


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_json_may_be_the_content(value: object) -> None:
    payload = json.dumps({"content": value, "type": "custom"}).encode()
    assert delivered(accepted(payload))["content"] == value


@pytest.mark.parametrize(
    "text",
    [
        b"null",
        b"true",
        b'""',
        b'"hi"',
        b"12345678901234567890123456789012345678901234567890",
        b"0.1000000000000000055511151231257827021181583404541015625",
        b"1e999",
        b"-0.0",
        b"18446744073709551617",
        b'{"a" : [ 1,  2 ] }',
        b'"\\u00e9\\/"',
        b'{"a": 1, "a": 2}',
    ],
)
def test_content_is_kept_as_it_was_written(text: bytes) -> None:
    payload = b'{"content": %b}' % text
    assert raw(payload) == text
    stamped = stamp(draft("alice", INBOX, accepted(payload)), 1, 1, (1, 1), 0)
    assert b'"content":' + text in stamped.body
    assert bytes(read_body(stamped.body).content) == text


@pytest.mark.parametrize("space", [b" ", b"\n", b"\r\n\t "])
def test_white_space_around_a_message(space: bytes) -> None:
    assert raw(space + b'{"content" : "x" }' + space) == b'"x"'


def test_an_escaped_key_is_a_key() -> None:
    assert raw(b'{"\\u0063ontent": 5}') == b"5"


def test_the_last_of_duplicate_keys_counts() -> None:
    content = accepted(b'{"content": 1, "type": "a", "content": 2, "type": "b"}')
    assert (bytes(content.content), content.type) == (b"2", "b")


@pytest.mark.parametrize("field", ["from_user_id", "seq", "id", "offset", "created_at", "withheld"])
def test_the_fields_of_the_server_are_refused(field: str) -> None:
    refusal = parse_payload(json.dumps({"content": 1, field: "eve"}).encode())
    assert isinstance(refusal, Refusal)
    assert f"`{field}`" in refusal.detail


def test_all_fields() -> None:
    content = accepted(
        b'{"content": {"url": "x"}, "type": "image", "client_msg_id": "c-1", "reply_to": "7251",'
        b' "mentions": ["bob", "carol"]}'
    )
    assert content.type == "image"
    assert content.client_msg_id == "c-1"
    assert content.reply_to == "7251"
    assert content.mentions == ["bob", "carol"]
    assert accepted(b'{"content": 1, "mentions": "all"}').mentions == "all"


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "t" * 32},
        {"client_msg_id": "é" * 64},
        {"client_msg_id": "\0"},
        {"client_msg_id": None, "type": "text", "reply_to": None, "mentions": None},
        {"data": None, "traceparent": None},
        {"mentions": []},
        {"mentions": ["u"] * 1000},
    ],
)
def test_fields_at_their_limit(fields: dict[str, object]) -> None:
    assert delivered(accepted(json.dumps({"content": 1} | fields).encode()))["content"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"type": 5},
        {"type": None},
        {"type": ""},
        {"type": "t" * 33},
        {"client_msg_id": ""},
        {"client_msg_id": "c" * 65},
        {"client_msg_id": 5},
        {"reply_to": 7251},
        {"reply_to": ""},
        {"reply_to": "x"},
        {"reply_to": "-1"},
        {"reply_to": "\u0663"},
        {"mentions": "everyone"},
        {"mentions": "bob"},
        {"mentions": {}},
        {"mentions": [5]},
        {"mentions": [None]},
        {"mentions": ["a b"]},
        {"mentions": [""]},
        {"mentions": ["u"] * 1001},
    ],
)
def test_a_message_with_a_bad_field_is_refused(fields: dict[str, object]) -> None:
    refusal = parse_payload(json.dumps({"content": 1} | fields).encode())
    assert isinstance(refusal, Refusal)
    assert refusal.code == "invalid_payload"
    assert refusal.reason_code == ReasonCode.PAYLOAD_FORMAT_INVALID
    assert refusal.detail


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_without_end(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deep = b'{"content": %b1%b}' % (opening * 30_000, closing * 30_000)
    assert isinstance(parse_payload(deep), Refusal)
    assert isinstance(parse_payload(deep[:-1]), Refusal | Content)  # cut off: either will do


@pytest.mark.parametrize(
    ("opening", "closing", "levels"),
    [(b"[", b"]", 1), (b'{"a":', b"}", 1), (b'[{"a":', b"}]", 2), (b'["]", ', b"]", 1)],
)
def test_how_deep_a_content_may_be(opening: bytes, closing: bytes, levels: int) -> None:
    for depth, is_refused in ((MAX_DEPTH, False), (MAX_DEPTH + levels, True)):
        content = opening * (depth // levels) + b"1" + closing * (depth // levels)
        assert isinstance(parse_payload(b'{"content": %b}' % content), Refusal) == is_refused


def test_brackets_that_do_not_nest() -> None:
    for content in (b"[" + b"[]," * 500 + b"{}]", json.dumps(["[{" * 500, '\\"[[' * 200, "\\"]).encode()):
        assert raw(b'{"content": %b}' % content) == content


@pytest.mark.parametrize("number", [b"1" * 5000, b"-" + b"1" * (MAX_DIGITS + 1), b"1." + b"1" * 5000])
def test_no_number_that_readers_cannot_decode(number: bytes) -> None:
    for value in (number, b'{"a": ["1\\"", %b]}' % number):
        refusal = parse_payload(b'{"content": %b}' % value)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "invalid_payload"
        assert refusal.detail == f"content: a number of more than {MAX_DIGITS} digits"
    refusal = parse_payload(b'{"content": "x", "data": {"a": %b}}' % number[:4000])
    assert isinstance(refusal, Refusal)
    assert refusal.detail.startswith("data: a number of more than")


def test_other_digits_are_kept_as_they_are() -> None:
    long = "1" * 5000
    for content in (
        b"1" * MAX_DIGITS,
        json.dumps(long).encode(),
        json.dumps({long: [f'"{long}', 1]}).encode(),
    ):
        assert raw(b'{"content": %b}' % content) == content


def test_nesting_without_end_in_what_is_no_message() -> None:
    payload = b"[" * 30_000 + b"]" * 30_000
    assert json.loads(raw(payload)) == payload.decode()


# --- what readers get -----------------------------------------------------------------------


def test_a_private_message_is_as_the_contract_says() -> None:
    content = accepted(b'{"content": "hi", "client_msg_id": "c-1"}')
    assert delivered(content) == {
        "id": "7251",
        "client_msg_id": "c-1",
        "conversation_id": "p:alice:bob",
        "conversation_type": "private",
        "seq": 12,
        "offset": 34,
        "from_user_id": "alice",
        "to_user_id": "bob",
        "type": "text",
        "content": "hi",
        "created_at": 1764000000123,
        "n": 9,
    }


def test_a_group_message_is_as_the_contract_says() -> None:
    content = accepted(b'{"content": null, "type": "custom", "reply_to": "7", "mentions": "all"}')
    assert delivered(content, "groups/team", 12) == {
        "id": "7251",
        "conversation_id": "g:team",
        "conversation_type": "group",
        "seq": 12,
        "offset": 12,
        "from_user_id": "alice",
        "group_id": "team",
        "type": "custom",
        "content": None,
        "created_at": 1764000000123,
        "n": 9,
        "reply_to": "7",
        "mentions": "all",
    }


def test_the_logs_of_a_message() -> None:
    content = accepted(b"hi")
    assert draft("alice", INBOX, content).logs == ("users/bob/inbox", "users/alice/inbox")
    assert draft("bob", INBOX, content).logs == ("users/bob/inbox",)
    assert draft("alice", GROUP, content).logs == ()
    assert draft("carol", INBOX, content).conversation_id == "p:bob:carol"
    assert draft("bob", INBOX, content).conversation_id == "p:bob:bob"
    assert draft("alice", GROUP, content).conversation_id == "g:team"


@given(st.integers(1, 2**32), st.text(max_size=20))
def test_the_offset_is_all_that_differs(offset: int, text: str) -> None:
    content = Content(msgspec.Raw(msgspec.json.encode(text)))
    body = stamp(draft("alice", GROUP, content), 1, 2, (), 3).body
    with_it = json.loads(with_offset(body, offset))
    assert with_it == json.loads(body) | {"offset": offset}
    assert json.loads(Entry(offset, body).payload) == with_it


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"hi", b"hi"),
        (b"hi", b'{"content": "hi", "type": "text"}'),
        (b'{"content":{"a":1,"b":2}}', b'{ "content" : { "b" : 2, "a" : 1 } }'),
        (b'{"content":"\\u00e9"}', '{"content":"é"}'.encode()),
        (b'{"content":1,"mentions":["a","b"]}', b'{"content":1,"mentions":["a","b"]}'),
    ],
)
def test_says_the_same(one: bytes, other: bytes) -> None:
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"hi", b"ho"),
        (b"1", b'{"content": 1}'),
        (b'{"content":1}', b'{"content":2}'),
        (b'{"content":1}', b'{"content":true}'),
        (b'{"content":[0]}', b'{"content":[false]}'),
        (b'{"content":18446744073709551616}', b'{"content":18446744073709551617}'),
        (b'{"content":1}', b'{"content":1,"type":"custom"}'),
        (b'{"content":1}', b'{"content":1,"reply_to":"7"}'),
        (b'{"content":1,"mentions":["a"]}', b'{"content":1,"mentions":["b"]}'),
        (b'{"content":1,"mentions":["a"]}', b'{"content":1,"mentions":"all"}'),
        (b'{"content":1}', b'{"content":1,"mentions":[]}'),
    ],
)
def test_says_something_else(one: bytes, other: bytes) -> None:
    assert not same(one, other)


@pytest.mark.parametrize("text", [b"1e999", b"[1e400]", b"-1e999"])
def test_what_was_accepted_once_can_be_compared(text: bytes) -> None:
    payload = b'{"content": %b}' % text
    assert same(payload, payload)
    assert not same(payload, b'{"content": 2}')

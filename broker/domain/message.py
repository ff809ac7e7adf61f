"""A message: from the payload a client publishes to the JSON its readers get.

    payload --parse_payload--> Content --draft--> Draft --stamp--> body (JSON without `offset`)
                                                                     --with_offset--> delivered JSON

The body is encoded once and stored once. A message has an entry in several logs, with a different `offset`
in each. So `offset` is not in the body: it is spliced in front when an entry is delivered.
"""

import base64
import json
import re
from typing import Literal

import msgspec

from broker.domain import conversation
from broker.domain.errors import ReasonCode, Refusal
from broker.domain.ids import is_id
from broker.domain.json_limits import MAX_DEPTH, MAX_DIGITS, is_too_deep, is_too_long
from broker.domain.publication import Properties
from broker.domain.topics import Kind, Topic, group_topic, inbox_topic, parse_topic

MAX_CLIENT_MSG_ID = 64
MAX_TYPE = 32
MAX_MENTIONS = 1000
MAX_DATA = 4096
"""Bytes of `data`, as JSON."""

NO_DATA = msgspec.Raw(b"null")
"""The `data` of a message without any. It is left out of the JSON."""

SERVER_TYPES = frozenset(("edit", "recall", "system"))
"""Types of entries that only the server writes."""


class Content(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The validated fields of a payload. `content` and `data` are raw JSON.

    Unknown fields are refused, so that a misspelt one is not lost without a word."""

    content: msgspec.Raw
    type: str = "text"
    client_msg_id: str | None = None
    reply_to: str | None = None
    mentions: list[str] | Literal["all"] | None = None
    data: msgspec.Raw = NO_DATA
    """A JSON object of the app's own. The server keeps it and does not look into it."""
    traceparent: str | None = None
    """The sender's trace context (W3C Trace Context, 3.2)."""


class Count(msgspec.Struct, frozen=True, gc=False):
    """The messages of a conversation up to one of its entries. Edits, recalls and system entries are none."""

    n: int = 0
    """How many there are."""
    last: int = 0
    """The seq of the last one; 0 for none."""

    def after(self, entry_type: str, seq: int) -> "Count":
        """The count up to the next entry, which has this type and seq."""
        return self if entry_type in SERVER_TYPES else Count(self.n + 1, seq)


class Amendment(msgspec.Struct, frozen=True, gc=False):
    """The new body that an edit or recall gives to the message at `seq` of the same conversation."""

    seq: int
    body: bytes


class Target(msgspec.Struct, frozen=True, gc=False):
    """The message that an edit or recall is about."""

    id: str
    seq: int
    created_at: int
    """Unix ms."""


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A message that is authorized and addressed, but has no id, seq or offset yet."""

    sender: str
    topic: Topic
    conversation_id: str
    logs: tuple[str, ...]
    """The inboxes that get an entry: the receiver's and the sender's. Empty for a group, whose readers
    read the conversation itself."""
    content: Content
    qos: int = 1
    """As published. It bounds the QoS of every delivery (MQTT 3.1.1, 3.8.4)."""
    target: Target | None = None
    """For an edit or recall: the message it changes."""
    amends: tuple[Amendment, ...] = ()
    properties: Properties | None = None


class Stamped(msgspec.Struct, frozen=True, gc=False):
    """A message with id, seq and offsets, ready to be committed. `body` is stored as it is."""

    draft: Draft
    id: int
    seq: int
    offsets: tuple[int, ...]
    """The offset in each of `draft.logs`, in that order."""
    body: bytes
    count: Count = Count()
    """Of the messages up to this one."""

    @property
    def is_message(self) -> bool:
        """Whether this is a message, and not an edit, a recall or a system entry."""
        return self.count.last == self.seq


class Body(msgspec.Struct, omit_defaults=True, gc=False):
    """The JSON of docs/api.md, "A message", without `offset`."""

    id: str
    conversation_id: str
    conversation_type: Literal["private", "group"]
    seq: int
    from_user_id: str
    type: str
    content: msgspec.Raw
    created_at: int
    """Unix ms."""
    n: int | None = None
    """How many messages there are in the conversation up to this entry. Edits, recalls and system entries
    are no messages."""
    client_msg_id: str | None = None
    """The sender's own id for the message. A message with the same id is stored once."""
    to_user_id: str | None = None
    group_id: str | None = None
    reply_to: str | None = None
    mentions: list[str] | Literal["all"] | None = None
    data: msgspec.Raw = NO_DATA
    """A JSON object of the app's own, as the sender gave it."""
    traceparent: str | None = None
    """The sender's trace context (W3C)."""
    target_id: str | None = None
    """For an edit or recall: the id of the message it changes."""
    edited_at: int | None = None
    """Unix ms of the last edit. `content` is the edited content."""
    recalled_at: int | None = None
    """Unix ms of the recall. The content is gone."""
    withheld: Literal["not_visible", "damaged"] | None = None
    """Why `content` is null: the entry is about a message that the reader may not see, or the store has lost
    it. The fields that say more about the content are missing then."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry of a log as the store returns it: its offset and the body of its message.

    `qos` and `properties` are the publisher's.
    """

    offset: int
    body: bytes
    qos: int = 1
    properties: Properties | None = None

    @property
    def payload(self) -> bytes:
        """The JSON a reader gets."""
        return with_offset(self.body, self.offset)


class _HasContent(msgspec.Struct, gc=False):
    content: msgspec.Raw


class _Named(_HasContent, gc=False):
    client_msg_id: str


_NONE = Count()

_decode_content = msgspec.json.Decoder(Content).decode
_decode_body = msgspec.json.Decoder(Body).decode
_decode_has_content = msgspec.json.Decoder(_HasContent).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_encode = msgspec.json.Encoder().encode

# Version, trace id, parent id and flags (W3C Trace Context, 3.2). Neither id may be all zeros.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def draft(
    sender: str, topic: Topic, content: Content, qos: int = 1, properties: Properties | None = None
) -> Draft:
    """Address a message from `sender` to an inbox or group topic."""
    if topic.kind is Kind.GROUP:
        logs: tuple[str, ...] = ()
        where = conversation.group_id(topic.owner)
    else:
        own = inbox_topic(sender)
        logs = (topic.name,) if own == topic.name else (topic.name, own)
        where = conversation.private_id(sender, topic.owner)
    return Draft(sender, topic, where, logs, content, qos, properties=properties)


def amending(sender: str, target: Body, content: Content, amends: tuple[Amendment, ...]) -> Draft:
    """Address an edit or recall to every log that holds the message, whichever user amends it."""
    if target.group_id is not None:
        topic = parse_topic(group_topic(target.group_id))
        logs: tuple[str, ...] = ()
    else:
        users = dict.fromkeys((str(target.to_user_id), target.from_user_id))
        logs = tuple(inbox_topic(user) for user in users)
        other = target.from_user_id if target.to_user_id == sender else str(target.to_user_id)
        topic = parse_topic(inbox_topic(other))
    about = Target(target.id, target.seq, target.created_at)
    return Draft(sender, topic, target.conversation_id, logs, content, target=about, amends=amends)


def parse_payload(payload: bytes) -> Content | Refusal:
    """Read a published payload.

    A JSON object with a `content` key is a message, and must be a valid one. Any other payload is itself
    the content: UTF-8 as type `text`, other bytes as base64 with type `binary`.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(payload).decode()
        return Content(msgspec.Raw(_encode(encoded)), type="binary")
    if payload[:1] == b"{" or text.lstrip()[:1] == "{":
        try:
            content = _decode_content(payload)
        except msgspec.ValidationError as error:
            if _has_content(payload):
                return _invalid(str(error))
        except RecursionError:
            if '"content"' in text:
                return _invalid("nested too deeply")
        except msgspec.DecodeError:
            pass  # not JSON: text that begins with a brace
        else:
            # Fewer brackets than MAX_DEPTH cannot nest deeper. This spares most messages the full check.
            if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH:
                for name, value in (("content", content.content), ("data", content.data)):
                    if is_too_deep(bytes(value)):
                        return _invalid(f"{name}: nested deeper than {MAX_DEPTH}")
            return _check(content)
    return Content(msgspec.Raw(_encode(text)))


def client_msg_id_of(payload: bytes) -> str | None:
    """The `client_msg_id` of a payload, also of one that is not valid otherwise. None if there is none, or
    none that could be read."""
    if b'"client_msg_id"' not in payload:  # spares most payloads the decoding
        return None
    try:
        found = _decode_named(payload).client_msg_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if 1 <= len(found) <= MAX_CLIENT_MSG_ID else None


def _has_content(payload: bytes) -> bool:
    try:
        _decode_has_content(payload)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _invalid(detail: str) -> Refusal:
    return Refusal("invalid_payload", ReasonCode.PAYLOAD_FORMAT_INVALID, detail)


def _check(content: Content) -> Content | Refusal:
    client_msg_id = content.client_msg_id
    if client_msg_id is not None and not 1 <= len(client_msg_id) <= MAX_CLIENT_MSG_ID:
        return _invalid(f"client_msg_id must have 1 to {MAX_CLIENT_MSG_ID} characters")
    if not 1 <= len(content.type) <= MAX_TYPE:
        return _invalid(f"type must have 1 to {MAX_TYPE} characters")
    if content.type in SERVER_TYPES:
        return _invalid(f"type {content.type!r} is reserved for the server")
    if content.reply_to is not None and not (content.reply_to.isascii() and content.reply_to.isdigit()):
        return _invalid("reply_to must be a message id")
    if content.traceparent is not None and _TRACEPARENT.fullmatch(content.traceparent) is None:
        return _invalid("traceparent must be a W3C trace context: version-traceid-parentid-flags")
    return (
        _check_mentions(content.mentions)
        or _check_numbers("content", content.content)
        or _check_data(content)
    )


def _check_data(content: Content) -> Content | Refusal:
    if content.data is NO_DATA:
        return content
    data = bytes(content.data)
    if data == bytes(NO_DATA):  # `null` means none, as for every field
        return msgspec.structs.replace(content, data=NO_DATA)
    if data[:1] != b"{":
        return _invalid("data must be a JSON object")
    if len(data) > MAX_DATA:
        return _invalid(f"data must have at most {MAX_DATA} bytes, not {len(data)}")
    return _check_numbers("data", content.data) or content


def _check_numbers(name: str, value: msgspec.Raw) -> Refusal | None:
    if is_too_long(bytes(value)):
        return _invalid(f"{name}: a number of more than {MAX_DIGITS} digits")
    return None


def _check_mentions(mentions: list[str] | Literal["all"] | None) -> Refusal | None:
    if isinstance(mentions, list):
        if len(mentions) > MAX_MENTIONS:
            return _invalid(f"mentions must have at most {MAX_MENTIONS} users")
        for user in mentions:
            if not is_id(user):
                return _invalid(f"mentions: {user[:64]!r} is not a user id")
    return None


def stamp(
    draft: Draft, message_id: int, seq: int, offsets: tuple[int, ...], now_ms: int, count: Count = _NONE
) -> Stamped:
    """Give a draft its id, seq and offsets, and encode its body. `count`: of the messages up to this one."""
    content = draft.content
    group = draft.topic.kind is Kind.GROUP
    # The first fields by position: Python collects more than 15 keyword arguments in a dict, which takes as
    # long as all the rest.
    body = Body(
        str(message_id),
        draft.conversation_id,
        "group" if group else "private",
        seq,
        draft.sender,
        content.type,
        content.content,
        now_ms,
        count.n,
        client_msg_id=content.client_msg_id,
        to_user_id=None if group else draft.topic.owner,
        group_id=draft.topic.owner if group else None,
        reply_to=content.reply_to,
        mentions=content.mentions,
        data=content.data,
        traceparent=content.traceparent,
        target_id=draft.target.id if draft.target else None,
    )
    return Stamped(draft, message_id, seq, offsets, _encode(body), count)


def with_offset(body: bytes, offset: int) -> bytes:
    """The delivered JSON: `offset` spliced in as the first member of the stored body."""
    # body[1:] drops the opening brace. Decoding and encoding each delivery would cost many times as much.
    return b'{"offset":%d,%b' % (offset, body[1:])


def read_body(body: bytes) -> Body:
    """Decode a stored body."""
    return _decode_body(body)


def encode_body(body: Body) -> bytes:
    """Encode a body for the store."""
    return _encode(body)


def says_the_same(body: Body, content: Content) -> bool:
    """Whether a stored message equals a new one, apart from `traceparent`, which differs each time a message
    is sent, and from white space and the order of keys in its JSON.

    True for a message that was edited, recalled or damaged: its first content is no longer stored."""
    if body.edited_at is not None or body.recalled_at is not None or body.withheld is not None:
        return True
    return (
        body.type == content.type
        and body.reply_to == content.reply_to
        and body.mentions == content.mentions
        and _same_json(bytes(body.content), bytes(content.content))
        and _same_json(bytes(body.data), bytes(content.data))
    )


def _same_json(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    # Compared as text, because 1, 1.0 and true are equal in Python. The standard library reads every JSON
    # number, but not every depth of nesting: beyond that only identical bytes are equal.
    try:
        return json.dumps(json.loads(one), sort_keys=True) == json.dumps(json.loads(other), sort_keys=True)
    except (ValueError, RecursionError):
        return False

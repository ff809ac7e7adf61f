"""Sending by a call, for those that want the message's id and seq in the answer.

It is what publishing to the topic is: the same rules, the same log, the same acknowledgement.
"""

from typing import Annotated, Any, Literal

import msgspec

from bridge.core.access import Access
from bridge.core.operations import Caller, Id, MessageId, Operations, Parameters, content_json
from bridge.core.posting import stored
from broker.domain.errors import Refusal, RefusedError
from broker.domain.message import Body
from broker.domain.permissions import GroupOperation
from broker.domain.topics import group_topic, inbox_topic
from broker.ports import BrokerPort, Post, Posted

MAX_PAYLOAD = 256 * 1024
"""Bytes of a message as it would be published."""


class SendParameters(Parameters, omit_defaults=True):
    """Either `user_id` or `group_id` says to whom; the rest is as in a published message."""

    content: Any
    """A string, or what the `type` needs; nested at most 100 deep."""
    user_id: Id | None = None
    group_id: Id | None = None
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "text"
    """Any but `system`, `edit` and `recall`, e.g. `image`."""
    client_msg_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    """The sender's own id of the message: sent again, it is not stored twice."""
    reply_to: MessageId | None = None
    """A message of the same conversation."""
    mentions: Annotated[list[Id], msgspec.Meta(max_length=1000)] | Literal["all"] | None = None
    """Users of the same conversation; `"all"` in groups only."""


class SentResult(msgspec.Struct):
    """Where the message stands. `created_at` is Unix ms."""

    id: str
    conversation_id: str
    seq: int
    created_at: int


class BatchParameters(Parameters):
    """Messages, stored in their order."""

    messages: Annotated[list[SendParameters], msgspec.Meta(min_length=1, max_length=1000)]
    """Each as for [messages.send](#messagessend)."""


class Failure(msgspec.Struct):
    """Why a message was not stored."""

    code: str
    """One of [these](#errors)."""
    detail: str


class BatchItem(msgspec.Struct):
    """What became of a message: `sent` or `error`, the other one is null."""

    sent: SentResult | None = None
    error: Failure | None = None


class BatchResult(msgspec.Struct):
    """What became of each message, in their order."""

    results: list[BatchItem]


class Sending:
    """The handlers."""

    def __init__(self, access: Access, broker: BrokerPort) -> None:
        self._access = access
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """Offer the methods."""
        operations.add("messages.send", self.send)
        operations.add("messages.send_batch", self.send_batch)

    async def send(self, caller: Caller, parameters: SendParameters) -> SentResult:
        """Send a message, as if the caller had published it. The same `client_msg_id` again returns the
        first one's place."""
        post = await self._prepare(caller, parameters)
        (posted,) = await self._broker.publish(caller.user, [post])
        return _sent(stored(posted))

    async def send_batch(self, caller: Caller, parameters: BatchParameters) -> BatchResult:
        """Send many messages; one that is refused does not keep the others."""
        items: list[BatchItem | None] = []
        posts = []
        for each in parameters.messages:
            try:
                posts.append(await self._prepare(caller, each))
                items.append(None)
            except RefusedError as error:
                items.append(BatchItem(error=Failure(error.code, error.detail)))
        posted = iter(await self._broker.publish(caller.user, posts))
        return BatchResult([item or _item(next(posted)) for item in items])

    async def _prepare(self, caller: Caller, parameters: SendParameters) -> Post:
        payload = msgspec.structs.asdict(parameters)
        payload["content"] = msgspec.Raw(content_json(parameters.content))
        user, group = payload.pop("user_id"), payload.pop("group_id")
        if (user is None) == (group is None):
            raise RefusedError("invalid_params", "give user_id or group_id, one of the two")
        if user is not None:
            await self._access.need_users([user])
        elif caller.is_system:  # the topic's rules are asked about users only
            await self._access.seat(caller, str(group), GroupOperation.POST)
        topic = inbox_topic(user) if user is not None else group_topic(str(group))
        encoded = msgspec.json.encode({name: value for name, value in payload.items() if value is not None})
        if len(encoded) > MAX_PAYLOAD:
            raise RefusedError(
                "invalid_params", f"a message has at most {MAX_PAYLOAD} bytes, not {len(encoded)}"
            )
        return Post(topic, encoded)


def _sent(body: Body) -> SentResult:
    return SentResult(body.id, body.conversation_id, body.seq, body.created_at)


def _item(posted: Posted) -> BatchItem:
    if not isinstance(posted, Refusal):
        return BatchItem(sent=_sent(posted))
    if posted.code == "unavailable":
        return BatchItem(error=Failure("unavailable", "the store failed, try again later"))
    return BatchItem(error=Failure(posted.code, posted.detail))

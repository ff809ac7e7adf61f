"""Sending messages by a call, for clients that need the message's id and seq in the reply.

It does the same as publishing to the topic: same permissions, same log, same guarantee that an
acknowledged message is stored.
"""

from typing import Annotated, Any, Literal

import msgspec

from bridge.core.access import Access
from bridge.core.operations import Caller, Id, MessageId, Operations, Parameters, content_json
from bridge.core.pacing import pace
from bridge.core.posting import stored
from broker.domain.errors import Refusal, RefusedError
from broker.domain.message import Body
from broker.domain.permissions import GroupOperation
from broker.domain.topics import group_topic, inbox_topic
from broker.ports import BrokerPort, Post, Posted

MAX_PAYLOAD = 256 * 1024
"""Most bytes of a message, encoded as if it were published."""


class SendParameters(Parameters, omit_defaults=True):
    """The message. Exactly one of `user_id` and `group_id` must be given."""

    content: Any
    """A string, or any JSON that suits the `type`; nested at most 100 deep."""
    user_id: Id | None = None
    """The receiver of a private message."""
    group_id: Id | None = None
    """The group to send to."""
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "text"
    """E.g. `text` or `image`. Not `system`, `edit` or `recall`: only the server writes these."""
    client_msg_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    """The idempotency key, chosen by the sender and unique for all time in this inbox or group. The same
    message sent again is not stored twice."""
    reply_to: MessageId | None = None
    """The message that this one answers, in the same conversation."""
    mentions: Annotated[list[Id], msgspec.Meta(max_length=1000)] | Literal["all"] | None = None
    """Users of the same conversation; or, in a group, `"all"`."""
    data: dict[str, Any] | None = None
    """An object of the app's own, at most 4 KiB of JSON. The server keeps it with the message and does not
    look into it; edits leave it as it is."""
    traceparent: Annotated[str, msgspec.Meta(max_length=55)] | None = None
    """The sender's trace context (W3C), kept with the message."""


class SentResult(msgspec.Struct):
    """The id and place of the stored message."""

    id: str
    conversation_id: str
    seq: int
    created_at: int
    """Unix ms."""


class BatchParameters(Parameters):
    """The messages."""

    messages: Annotated[list[SendParameters], msgspec.Meta(min_length=1, max_length=1000)]
    """Each has the parameters of [messages.send](#messagessend)."""


class Failure(msgspec.Struct):
    """Why a message was not stored."""

    code: str
    """One of [these](#errors)."""
    detail: str
    """An explanation for people."""


class BatchItem(msgspec.Struct):
    """The outcome for one message: either `sent` or `error`; the other one is null."""

    sent: SentResult | None = None
    error: Failure | None = None


class BatchResult(msgspec.Struct):
    """The outcome for each message."""

    results: list[BatchItem]
    """In the order of the request."""


class Sending:
    """The handlers."""

    def __init__(self, access: Access, broker: BrokerPort) -> None:
        self._access = access
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("messages.send", self.send)
        operations.add("messages.send_batch", self.send_batch)

    async def send(self, caller: Caller, parameters: SendParameters) -> SentResult:
        """Send a message, as if the caller had published it. On return it is stored. If the caller sent a
        message with the same `client_msg_id` before, nothing is stored and the result is that of the first
        one; with other content it is refused (`duplicate_conflict`)."""
        post = await self._prepare(caller, parameters)
        (posted,) = await self._broker.publish(caller.user, [post])
        return _sent(stored(posted))

    async def send_batch(self, caller: Caller, parameters: BatchParameters) -> BatchResult:
        """Send up to 1,000 messages. They are stored in their order. A message that is refused does not
        prevent the others."""
        # The call itself is counted, too. This one goes on: while it waited, others could not run.
        await pace(self._broker, caller, len(parameters.messages) - 1, wait=False)
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
        if parameters.data is not None:
            payload["data"] = msgspec.Raw(content_json(parameters.data, "data"))
        user, group = payload.pop("user_id"), payload.pop("group_id")
        if (user is None) == (group is None):
            raise RefusedError("invalid_params", "give either user_id or group_id")
        if user is not None:
            await self._access.need_users([user])
        elif caller.is_system:  # the broker checks topic rules for users only, not for the system
            await self._access.seat(caller, str(group), GroupOperation.POST)
        topic = inbox_topic(user) if user is not None else group_topic(str(group))
        encoded = msgspec.json.encode({name: value for name, value in payload.items() if value is not None})
        if len(encoded) > MAX_PAYLOAD:
            raise RefusedError(
                "invalid_params", f"a message may have at most {MAX_PAYLOAD} bytes, not {len(encoded)}"
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

"""Storing one message through the broker's port, whose answers come in lists."""

from broker.domain.errors import Refusal, RefusedError, StoreError
from broker.domain.message import Body, Draft
from broker.ports import BrokerPort, Posted


async def append_one(broker: BrokerPort, draft: Draft) -> Body:
    """See `BrokerPort.append`. Raises `RefusedError`, and `StoreError` if it is not stored."""
    (posted,) = await broker.append([draft])
    return stored(posted)


def stored(posted: Posted) -> Body:
    """The message as it is stored. Raises `RefusedError`, and `StoreError` if it is not stored."""
    if not isinstance(posted, Refusal):
        return posted
    if posted.code == "unavailable":
        raise StoreError(posted.detail)
    raise RefusedError(posted.code, posted.detail)

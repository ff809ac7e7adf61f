"""Unpacks the answers of `BrokerPort`, which come in lists, for callers that store one message."""

from broker.domain.errors import Refusal, RefusedError, StoreError
from broker.domain.message import Body, Draft
from broker.ports import BrokerPort, Posted


async def append_one(broker: BrokerPort, draft: Draft) -> Body:
    """`BrokerPort.append` for one message. Raises `RefusedError`, and `StoreError` if the store failed."""
    (posted,) = await broker.append([draft])
    return stored(posted)


def stored(posted: Posted) -> Body:
    """The stored message. Raises `RefusedError` if it was refused, `StoreError` if the store failed."""
    if not isinstance(posted, Refusal):
        return posted
    if posted.code == "unavailable":
        raise StoreError(posted.detail)
    raise RefusedError(posted.code, posted.detail)

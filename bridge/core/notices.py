"""Publishes notices: the `system` entries that changes of the directory write to logs.

This is a transactional outbox. The directory stores a change and its notices in one transaction, so no
notice is lost: one that has not reached its log when the node dies is published at the next start. The
entry's `client_msg_id` is the notice's id, so publishing it again stores nothing twice.
"""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from bridge.core.posting import stored
from broker.domain import message
from broker.domain.directory import SYSTEM
from broker.domain.errors import RefusedError, StoreError
from broker.domain.message import Content, Draft
from broker.domain.topics import parse_topic
from broker.ports import BrokerPort, Notice, PendingNotices

logger = logging.getLogger(__name__)

_BATCH = 1000
_RETRY_SECONDS = 1.0


def notice(sender: str, topic: str, event: str, **values: Any) -> Notice:
    """A notice: an entry of type `system` for the log of a topic. Its content holds the `event`, the user
    who did it as `by`, and those `values` that are not None."""
    content: dict[str, Any] = {"event": event, "by": sender}
    content |= {key: value for key, value in values.items() if value is not None}
    return Notice(uuid.uuid4().hex, sender or SYSTEM, topic, msgspec.json.encode(content))


class Notices:
    """Publishes notices. Call `publish` after each change of the directory, and `recover` at start."""

    def __init__(self, directory: PendingNotices, broker: BrokerPort) -> None:
        self._directory = directory
        self._broker = broker
        self._retry: asyncio.Task[None] | None = None

    async def publish(self, notices: Sequence[Notice]) -> None:
        """Publish notices that the directory has stored. Does not raise if a store fails, as the change
        itself has happened: the notices are retried until they are in their logs."""
        try:
            await self._publish(notices)
        except StoreError as error:
            logger.error("%d notices could not be published, retrying: %s", len(notices), error)
            if self._retry is None:
                self._retry = asyncio.get_running_loop().create_task(self._try_again())

    async def recover(self) -> None:
        """Publish all pending notices. Raises `StoreError`."""
        while notices := await self._directory.notices(_BATCH):
            await self._publish(notices)

    async def settle(self, topic: str) -> None:
        """Publish the pending notices of one topic, even if another task is publishing them: an entry is
        stored once. Raises `StoreError`."""
        left = [each for each in await self._directory.notices(_BATCH) if each.topic == topic]
        if left:
            await self._publish(left)

    async def close(self) -> None:
        """Stop retrying. Pending notices are published at the next start."""
        if self._retry is not None:
            self._retry.cancel()

    async def _try_again(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            try:
                await self.recover()
            except StoreError:
                continue
            except Exception:  # a bug must not end the retries: a stored notice must reach its log
                logger.exception("publishing notices")
                continue
            self._retry = None
            return

    async def _publish(self, notices: Sequence[Notice]) -> None:
        for each, posted in zip(notices, await self._broker.append(list(map(_draft, notices))), strict=True):
            try:
                stored(posted)
            except RefusedError as error:  # a retry would be refused again
                logger.error("notice %s for %s is dropped: %s", each.id, each.topic, error)
        await self._directory.drop_notices([each.id for each in notices])


def _draft(each: Notice) -> Draft:
    content = Content(msgspec.Raw(each.content), type="system", client_msg_id=each.id)
    return message.draft(each.sender, parse_topic(each.topic), content)

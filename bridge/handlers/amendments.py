"""Edit and recall: entries of the log that name their target, and what the target says since.

The entry and the target's new body are committed together. A recalled message's content is gone
from the store, and so is what edits made of it: no reader that comes later gets it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from bridge.core.access import Access
from bridge.core.operations import Caller, MessageId, Operations, Parameters, content_json
from bridge.core.posting import append_one
from bridge.core.turns import Turns
from broker.domain.errors import RefusedError
from broker.domain.message import SERVER_TYPES, Amendment, Body, Content, amending, encode_body, read_body
from broker.domain.permissions import GroupOperation, UserOperation
from broker.ports import BrokerPort, Located, MessageLog

MAX_CONTENT = 256 * 1024
"""Bytes of JSON."""

_EDITS = 100
"""Read at a time."""

_NOTHING = msgspec.Raw(b"null")


class EditParameters(Parameters):
    """A message, and what it is to say."""

    id: MessageId
    content: Any
    """A string, or what the message's `type` needs; nested at most 100 deep, at most 256 KiB."""


class RecallParameters(Parameters):
    """The message to take back."""

    id: MessageId


class EntryResult(msgspec.Struct):
    """The entry that tells readers of the change."""

    entry: Body
    """Of type `edit` or `recall`, with the message's id as `target_id`; without `offset`."""


class Amendments:
    """The handlers."""

    def __init__(self, log: MessageLog, access: Access, broker: BrokerPort) -> None:
        self._log = log
        self._access = access
        self._broker = broker
        # One change of a message at a time: an edit must not bring a recalled one back.
        self._turns: Turns[int] = Turns()

    def register(self, operations: Operations) -> None:
        """Offer the methods."""
        operations.add("messages.edit", self.edit)
        operations.add("messages.recall", self.recall)

    async def edit(self, caller: Caller, parameters: EditParameters) -> EntryResult:
        """Change what a message of the caller's says, within the time the configuration allows."""
        content = msgspec.Raw(content_json(parameters.content))
        if len(bytes(content)) > MAX_CONTENT:
            raise RefusedError("invalid_params", f"content: at most {MAX_CONTENT} bytes")
        async with self._turns.of(int(parameters.id)):
            located, body = await self._target(parameters.id)
            await self._may(caller, body, UserOperation.EDIT, GroupOperation.EDIT)
            if body.from_user_id != caller.user:
                raise RefusedError("not_authorized", "only its sender may edit a message")
            now = self._access.now_ms()
            changed = msgspec.structs.replace(body, content=content, edited_at=now)
            return await self._append(caller, located, body, Content(content, type="edit"), changed, ())

    async def recall(self, caller: Caller, parameters: RecallParameters) -> EntryResult:
        """Take a message back: its sender within the time the configuration allows, an admin of the
        group at any time."""
        async with self._turns.of(int(parameters.id)):
            located, body = await self._target(parameters.id)
            own = body.from_user_id == caller.user
            in_group = GroupOperation.RECALL if own else GroupOperation.RECALL_OTHERS
            await self._may(caller, body, UserOperation.RECALL, in_group)
            if body.group_id is None and not own and not caller.is_system:
                raise RefusedError("not_authorized", "only its sender may recall a message")
            now = self._access.now_ms()
            changed = msgspec.structs.replace(
                body, content=_NOTHING, recalled_at=now, reply_to=None, mentions=None
            )
            edits = await self._emptied_edits(located, now) if body.edited_at is not None else []
            entry = Content(_NOTHING, type="recall")
            return await self._append(caller, located, body, entry, changed, edits)

    async def _emptied_edits(self, located: Located, now: int) -> list[Amendment]:
        """The entries that have edited a message, without what they said."""
        emptied: list[Amendment] = []
        where, after = located.conversation_id, located.seq
        while edits := await self._log.amendments(where, located.seq, after, _EDITS, MAX_CONTENT):
            for edit in edits:
                body = msgspec.structs.replace(read_body(edit.body), content=_NOTHING, recalled_at=now)
                emptied.append(Amendment(edit.offset, encode_body(body)))
            after = edits[-1].offset
        return emptied

    async def _target(self, message_id: str) -> tuple[Located, Body]:
        located = (await self._log.locate([int(message_id)])).get(int(message_id))
        if located is None:
            raise RefusedError("not_found", f"no message {message_id}")
        body = read_body(located.body)
        if body.recalled_at is not None:
            raise RefusedError("not_found", f"message {message_id} was recalled")
        return located, body

    async def _may(
        self, caller: Caller, body: Body, private: UserOperation, in_group: GroupOperation
    ) -> None:
        room = await self._access.room_of(caller, body.id, body.conversation_id)
        if body.seq <= room.floor or body.created_at < room.since:
            raise RefusedError("not_found", f"no message {body.id}")
        if body.type in SERVER_TYPES:
            raise RefusedError("not_authorized", f"an entry of type {body.type} stays as it is")
        if body.group_id is not None:
            await self._access.seat(caller, body.group_id, in_group, body.created_at)
        else:
            for peer in room.peers or (caller.user,):
                await self._access.between(caller, peer, private, body.created_at)

    async def _append(
        self,
        caller: Caller,
        located: Located,
        body: Body,
        content: Content,
        changed: Body,
        others: Sequence[Amendment],
    ) -> EntryResult:
        amends = (Amendment(located.seq, encode_body(changed)), *others)
        draft = amending(caller.user, body, content, amends)
        return EntryResult(await append_one(self._broker, draft))

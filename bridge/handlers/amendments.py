"""Edit and recall. Both write a new entry that names its target, and replace the target's body.

The entry and the new body are committed together. Recalling a message deletes its content from the
store, and the content of all its edits: nobody who reads the log later gets it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from bridge.core.access import Access, Room, no_message
from bridge.core.operations import Caller, MessageId, Operations, Parameters, content_json
from bridge.core.posting import append_one
from bridge.core.turns import Turns
from broker.domain.errors import RefusedError
from broker.domain.message import (
    NO_DATA,
    SERVER_TYPES,
    Amendment,
    Body,
    Content,
    amending,
    encode_body,
    read_body,
)
from broker.domain.permissions import GroupOperation, UserOperation
from broker.ports import BrokerPort, Located, MessageLog

MAX_CONTENT = 256 * 1024
"""Most bytes of a content, as JSON."""

_EDITS = 100
"""How many edits of a message are read at a time."""

_NOTHING = msgspec.Raw(b"null")


class EditParameters(Parameters):
    """The message and its new content."""

    id: MessageId
    content: Any
    """A string, or any JSON that suits the message's `type`. At most 256 KiB, nested at most 100 deep."""


class RecallParameters(Parameters):
    """The message to recall."""

    id: MessageId


class EntryResult(msgspec.Struct):
    """The new entry that announces the change to readers."""

    entry: Body
    """Its `type` is `edit` or `recall`, its `target_id` is the message's id. It has no `offset`."""


class Amendments:
    """The handlers."""

    def __init__(self, log: MessageLog, access: Access, broker: BrokerPort) -> None:
        self._log = log
        self._access = access
        self._broker = broker
        # One change of a message at a time: a concurrent edit must not restore a recalled message.
        self._turns: Turns[int] = Turns()

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("messages.edit", self.edit)
        operations.add("messages.recall", self.recall)

    async def edit(self, caller: Caller, parameters: EditParameters) -> EntryResult:
        """Replace the content of a message that the caller sent. This is possible for a limited time
        (`messages.edit_seconds`, one day by default; else `too_late`), and only while the caller may send
        messages there: who is muted, blocked or not a member any more may not edit either. An entry of type
        `edit` announces it to readers; later readers get the new content with `edited_at`.
        The message keeps its `data`."""
        content = msgspec.Raw(content_json(parameters.content))
        if len(bytes(content)) > MAX_CONTENT:
            raise RefusedError("invalid_params", f"content: more than {MAX_CONTENT} bytes of JSON")
        async with self._turns.of(int(parameters.id)):
            located, body = await self._target(caller, parameters.id, UserOperation.EDIT, GroupOperation.EDIT)
            if body.withheld is not None:
                raise RefusedError("not_found", f"message {body.id} is damaged: send it again")
            now = self._access.now_ms()
            changed = msgspec.structs.replace(body, content=content, edited_at=now)
            return await self._append(caller, located, body, Content(content, type="edit"), changed, ())

    async def recall(self, caller: Caller, parameters: RecallParameters) -> EntryResult:
        """Recall a message: its content and `data` are deleted for everybody. The sender may do so for a
        limited time (`messages.recall_seconds`, two minutes by default; else `too_late`), the owner and
        admins of a group at any time. An entry of type `recall` announces it to readers; later readers get
        the message without them and with `recalled_at`."""
        async with self._turns.of(int(parameters.id)):
            located, body = await self._target(
                caller, parameters.id, UserOperation.RECALL, GroupOperation.RECALL
            )
            now = self._access.now_ms()
            changed = msgspec.structs.replace(
                body,
                content=_NOTHING,
                recalled_at=now,
                reply_to=None,
                mentions=None,
                data=NO_DATA,
                withheld=None,
            )
            may_have_edits = body.edited_at is not None or body.withheld is not None
            edits = await self._emptied_edits(located, now) if may_have_edits else []
            entry = Content(_NOTHING, type="recall")
            return await self._append(caller, located, body, entry, changed, edits)

    async def _emptied_edits(self, located: Located, now: int) -> list[Amendment]:
        """The edits of a message, with their content removed."""
        emptied: list[Amendment] = []
        where, after = located.conversation_id, located.seq
        while edits := await self._log.amendments(where, located.seq, after, _EDITS, MAX_CONTENT):
            for edit in edits:
                body = msgspec.structs.replace(
                    read_body(edit.body), content=_NOTHING, recalled_at=now, withheld=None
                )
                emptied.append(Amendment(edit.offset, encode_body(body)))
            after = edits[-1].offset
        return emptied

    async def _target(
        self, caller: Caller, message_id: str, private: UserOperation, in_group: GroupOperation
    ) -> tuple[Located, Body]:
        """A message that the caller may change by the operation. Whether it was recalled is for those to
        know who may read it."""
        located = (await self._log.locate([int(message_id)])).get(int(message_id))
        if located is None:
            raise no_message(message_id)
        body = read_body(located.body)
        room = await self._access.room_of(caller, message_id, body)
        if room.hides(body.seq, body.created_at):
            raise no_message(message_id)
        if body.recalled_at is not None:
            raise RefusedError("not_found", f"message {message_id} was recalled")
        await self._may(caller, room, body, private, in_group)
        return located, body

    async def _may(
        self, caller: Caller, room: Room, body: Body, private: UserOperation, in_group: GroupOperation
    ) -> None:
        if body.type in SERVER_TYPES:
            raise RefusedError("not_authorized", f"an entry of type {body.type} cannot be changed")
        if body.group_id is not None:
            await self._access.seat(caller, body.group_id, in_group, body)
        else:
            for peer in room.peers or (caller.user,):  # no peers: a conversation with oneself
                await self._access.between(caller, peer, private, body)

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

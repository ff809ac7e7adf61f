"""The states of conversations, without what a test does not ask."""

from typing import TYPE_CHECKING

import msgspec

from broker.ports import ConversationState

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores


def state(conversation_id: str, head: int = 0, own: int = 0, **changes: object) -> ConversationState:
    """A state of which nothing else is known."""
    nothing = ConversationState(conversation_id, head, own, 0, 0, False, False, False, *[0] * 7)
    return msgspec.structs.replace(nothing, **changes)


async def one(stores: "OpenedStores", user: str, conversation_id: str) -> ConversationState:
    """A state without ids and counts."""
    (found,) = await stores.conversations.states(user, [conversation_id])
    return msgspec.structs.replace(found, head_id=0, last_id=0, last_seq=0, messages=0, seen=0)


async def counted(stores: "OpenedStores", user: str, where: str, floor: int = 0) -> tuple[int, int, int, int]:
    """Messages, those seen, and the seqs of the last one and of the user's own last one."""
    (found,) = await stores.conversations.states(user, [where], {where: floor})
    return found.messages, found.seen, found.last_seq, found.own_seq

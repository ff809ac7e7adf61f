"""What a restore means for the stored sessions.

A client may have got entries that the backup does not have, and it may hold packet ids that the backup does
not know. So each session is marked: at its next connection the client is told that there is no session, which
ends what both sides know of each other's packets, and it gets a `gap` event for each log. Its subscriptions
and its cursors stay, so that it misses nothing that is there.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from broker.ports import Lost, Saved, SessionKey, SessionState, Stores

_AT_ONCE = 100


async def mark_sessions(stores: Stores, former: Stores | None, now_ms: int) -> int:
    """Mark all stored sessions. `former`: the store that is replaced, if the backup is an earlier state of
    it: it knows how far the clients had got. Returns the number of sessions. Raises `StoreError`."""
    keys = [each.key for each in await stores.states.subscriptions()]
    for start in range(0, len(keys), _AT_ONCE):
        changes = []
        for key in keys[start : start + _AT_ONCE]:
            state = await stores.states.load(key)
            if state is not None:
                marked = await _marked(stores, state, await _former_cursors(former, key))
                changes.append(Saved(key, marked, now_ms))
        await stores.states.apply(changes)
    return len(keys)


async def _former_cursors(former: Stores | None, key: SessionKey) -> Mapping[str, tuple[int, int]]:
    """Log -> up to where the client has acknowledged everything, and up to where it was sent anything."""
    state = None if former is None else await former.states.load(key)
    if state is None:
        return {}
    return {log: (_acknowledged(state, log), offset) for log, offset in state.cursors.items()}


def _acknowledged(state: SessionState, log: str) -> int:
    unacknowledged = [item.offset for item in state.inflight if item.log == log and not item.released]
    return min([state.cursors[log], *(offset - 1 for offset in unacknowledged)])


async def _marked(stores: Stores, state: SessionState, former: Mapping[str, tuple[int, int]]) -> SessionState:
    heads = await stores.messages.heads(list(state.cursors))
    cursors, lost = {}, {}
    for log in state.cursors:
        acknowledged, sent = former.get(log, (0, 0))
        cursors[log] = min(heads[log], max(_acknowledged(state, log), acknowledged))
        lost[log] = Lost(heads[log] + 1, sent if sent > heads[log] else None)
    queue = [replace(message, packet_id=0) for message in state.queue if not message.released]
    return SessionState(state.filters, cursors, [], [], queue, lost=lost)

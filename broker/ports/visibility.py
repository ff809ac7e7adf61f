"""Reading a log as somebody who may not see all of its messages."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from broker.domain.message import Entry, read_body
from broker.domain.visibility import OPEN, View, target_of, withheld
from broker.ports.messages import Located, MessageLog


async def shown(
    log: MessageLog, entries: Sequence[Entry], view: View, counted: Callable[[int], None]
) -> Sequence[Entry]:
    """Entries as a reader with this view may see them: those about a hidden message are withheld, and
    their number is `counted`. Raises `StoreError`."""
    if view == OPEN:
        return entries
    return await shown_each(log, [(entry, view) for entry in entries], counted)


async def shown_each(
    log: MessageLog, entries: Sequence[tuple[Entry, View]], counted: Callable[[int], None]
) -> list[Entry]:
    """As `shown`, for entries of several logs, each with the view of its reader."""
    targets = [None if view == OPEN else target_of(entry.body) for entry, view in entries]
    # An entry does not say where its target is: it is looked up. Few readers have a horizon, and few entries
    # a target.
    wanted = {target for target in targets if target is not None}
    found = await log.locate(list(wanted)) if wanted else {}
    hidden = [
        target is not None and _hides(view, found.get(target))
        for (_, view), target in zip(entries, targets, strict=True)
    ]
    counted(sum(hidden))
    return [
        replace(entry, body=withheld(entry.body)) if is_hidden else entry
        for (entry, _), is_hidden in zip(entries, hidden, strict=True)
    ]


def _hides(view: View, located: Located | None) -> bool:
    return located is None or view.hides(
        located.conversation_id, located.seq, read_body(located.body).created_at
    )

"""Reading a log as somebody who may not see all of its messages."""

from collections.abc import Sequence

from msgspec.structs import replace

from broker.domain.message import Entry, read_body
from broker.domain.visibility import OPEN, View, target_of, withheld
from broker.ports.messages import Located, MessageLog


async def shown(log: MessageLog, entries: Sequence[Entry], view: View) -> Sequence[Entry]:
    """Entries as a reader with this view may see them: those about a hidden message are withheld.
    Raises `StoreError`."""
    if view == OPEN:
        return entries
    return await shown_each(log, [(entry, view) for entry in entries])


async def shown_each(log: MessageLog, entries: Sequence[tuple[Entry, View]]) -> list[Entry]:
    """As `shown`, for entries of several logs, each with the view of its reader."""
    targets = [None if view == OPEN else target_of(entry.body) for entry, view in entries]
    # An entry does not say where its target is: it is looked up. Few readers have a horizon, and few entries
    # a target.
    wanted = {target for target in targets if target is not None}
    found = await log.locate(list(wanted)) if wanted else {}
    return [
        entry
        if target is None or not _hides(view, found.get(target))
        else replace(entry, body=withheld(entry.body))
        for (entry, view), target in zip(entries, targets, strict=True)
    ]


def _hides(view: View, located: Located | None) -> bool:
    return located is None or view.hides(
        located.conversation_id, located.seq, read_body(located.body).created_at
    )

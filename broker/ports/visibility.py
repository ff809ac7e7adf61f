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
    targets = {entry.offset: target for entry in entries if (target := target_of(entry.body)) is not None}
    if not targets:
        return entries
    # The entry does not say where its target is: it is looked up. Few readers have a horizon, and few
    # entries a target.
    found = await log.locate(list(set(targets.values())))
    hidden = {offset for offset, target in targets.items() if _hides(view, found.get(target))}
    counted(len(hidden))
    return [
        replace(entry, body=withheld(entry.body)) if entry.offset in hidden else entry for entry in entries
    ]


def _hides(view: View, located: Located | None) -> bool:
    return located is None or view.hides(
        located.conversation_id, located.seq, read_body(located.body).created_at
    )

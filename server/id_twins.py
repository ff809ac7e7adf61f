"""Tells at start of ids that differ from another in case only. Earlier versions have given them."""

import logging

from broker.ports import AccountDirectory

logger = logging.getLogger(__name__)

_NAMED = 20


async def report_id_twins(directory: AccountDirectory) -> None:
    """Log the ids that differ from another in case only. They stay: whoever has one keeps their messages, and
    the operator decides what becomes of them. Raises `StoreError`."""
    twins, total = await directory.id_twins(_NAMED)
    if not total:
        return
    named = ", ".join(f"{twin.kind} {twin.id} (as {twin.other})" for twin in twins)
    more = f" and {total - len(twins)} more" if total > len(twins) else ""
    logger.warning("ids that differ from another in case only: %s%s. They stay", named, more)

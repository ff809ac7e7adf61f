"""Are the stores the ones that the data directory was used with?

The message store, the directory and the data directory (store.json) keep one identity. The node starts only
if all three agree, so that a store that was lost, emptied, exchanged or not mounted is noticed before anybody
is shown an empty history. At the first start with stores that have no identity, they are given one.
"""

import logging
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec

from broker.ports import Identified, StoreIdentity
from server.data_dir import StartError, write

logger = logging.getLogger(__name__)

FILE = "store.json"
MESSAGES, DIRECTORY = "message store", "directory"


class Kept(msgspec.Struct, frozen=True):
    """The contents of store.json."""

    id: str
    generation: int
    written: bool = True
    """Whether both stores have the identity as well. False only if the node ended before it had given it to
    both: the next start goes on with that."""

    @property
    def identity(self) -> StoreIdentity:
        return StoreIdentity(self.id, self.generation)


async def identify(
    data_dir: Path, messages: Identified, directory: Identified, *, accept_new: bool
) -> StoreIdentity:
    """Check the identities of the open stores. Returns the one that they have.

    `accept_new`: if they differ, give all of them one identity.

    Raises:
        StartError: they differ, or store.json is damaged.
        StoreError: a store failed.
    """
    kept = read_kept(data_dir)
    found = {MESSAGES: await messages.store_identity(), DIRECTORY: await directory.store_identity()}
    agreed = _agreed(kept, found)
    if agreed is None:
        if not accept_new:
            raise StartError(_difference(data_dir, kept, found))
        agreed = _successor(kept, found)
        logger.warning(
            "going on with stores that differ (%s), now as store %s of generation %d",
            _difference(data_dir, kept, found),
            agreed.id,
            agreed.generation,
        )
    if kept is None or not kept.written or set(found.values()) != {agreed}:
        # In this order a node that is killed in between finds out at its next start what it was doing.
        keep(data_dir, agreed, written=False)
        await messages.set_store_identity(agreed)
        await directory.set_store_identity(agreed)
        keep(data_dir, agreed)
    return agreed


def read_kept(data_dir: Path) -> Kept | None:
    """The identity that a data directory keeps; None if there is none. Raises `StartError`."""
    file = data_dir / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StartError(
            f"{file} is damaged ({error}): delete it, and the node writes it again from its stores"
        ) from error


def keep(data_dir: Path, identity: StoreIdentity, *, written: bool = True) -> None:
    """Write store.json."""
    write(data_dir / FILE, Kept(identity.id, identity.generation, written))


def _agreed(kept: Kept | None, found: Mapping[str, StoreIdentity | None]) -> StoreIdentity | None:
    """The identity that all have or are to be given; None if they differ."""
    identities = set(found.values())
    if kept is not None and not kept.written:
        identities.discard(None)
    if kept is not None:
        identities.add(kept.identity)
    if len(identities) > 1:
        return None
    (identity,) = identities
    return StoreIdentity(uuid.uuid4().hex, 1) if identity is None else identity


def _successor(kept: Kept | None, found: Mapping[str, StoreIdentity | None]) -> StoreIdentity:
    """The identity to go on with. Offsets stay valid if the message store is the one it was; otherwise it is
    another store, of a generation that no client has seen."""
    messages = found[MESSAGES]
    if messages is not None and (kept is None or kept.identity == messages):
        return messages
    known = [*found.values(), None if kept is None else kept.identity]
    return StoreIdentity(uuid.uuid4().hex, 1 + max(each.generation for each in known if each is not None))


def _difference(data_dir: Path, kept: Kept | None, found: Mapping[str, StoreIdentity | None]) -> str:
    if kept is None:
        stores = " and the ".join(f"{name} ({_shown(identity)})" for name, identity in found.items())
        what = f"the {stores} do not belong together"
    else:
        others = {name: identity for name, identity in found.items() if identity != kept.identity}
        stores = " and the ".join(f"{name} ({_shown(identity)})" for name, identity in others.items())
        verb = "is" if len(others) == 1 else "are"
        what = f"the {stores} {verb} not what {data_dir} was used with ({_shown(kept.identity)})"
    return f"{what}: put the right one back, or go on with what is there: imctl serve --accept-new-store"


def _shown(identity: StoreIdentity | None) -> str:
    if identity is None:
        return "new or emptied"
    return f"store {identity.id[:8]} of generation {identity.generation}"

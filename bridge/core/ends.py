"""Offsets and seqs that lead nowhere: beyond the end of a log, or from before a restore of the store."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from broker.domain.errors import RefusedError

Generation = Annotated[int, msgspec.Meta(ge=0, lt=2**53, description="The generation of the stores.")]

_MOST_HEADS = 1000


class Ends:
    """Refuses what is out of range. `generation` is that of the stores: a restore raises it."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def is_other(self, generation: int | None) -> bool:
        """Whether a client's offsets are from another generation, so that they may mean other entries."""
        return generation is not None and generation != self.generation

    def check_cursors(
        self, cursors: Mapping[str, int], heads: Mapping[str, int], generation: int | None
    ) -> None:
        """Check cursors by topic. 0 is always in range. Raises `RefusedError` (`out_of_range`)."""
        is_other = self.is_other(generation)
        gone = {
            topic: heads[topic]
            for topic, cursor in cursors.items()
            if cursor > heads[topic] or (is_other and cursor)
        }
        if gone:
            topic, head = next(iter(gone.items()))
            heads = dict(list(gone.items())[:_MOST_HEADS])
            raise self._refusal(topic, cursors[topic], head, is_other, {"topic": topic, "heads": heads})

    def check(self, where: str, place: int, head: int, generation: int | None) -> None:
        """The same for one offset or seq of a log or conversation."""
        is_other = self.is_other(generation)
        if place > head or (is_other and place):
            raise self._refusal(where, place, head, is_other, {})

    def check_generation(self, generation: int | None) -> None:
        """For what is not an offset, such as a time of changes."""
        if self.is_other(generation):
            detail = f"the store was restored: it has generation {self.generation}, not {generation}"
            raise RefusedError("out_of_range", detail, {"generation": self.generation})

    def _refusal(
        self, where: str, place: int, head: int, is_other: bool, facts: Mapping[str, object]
    ) -> RefusedError:
        if is_other:
            detail = f"{where}: the store was restored: {place} may be another entry now, the last is {head}"
        else:
            detail = f"{where} has no entry {place}: the last is {head}"
        return RefusedError("out_of_range", detail, {**facts, "head": head, "generation": self.generation})

"""What a session needs of others."""

from typing import Protocol, TypeVar

S_contra = TypeVar("S_contra", contravariant=True)


class Outbox(Protocol):
    """The bytes on their way to one client."""

    full: bool
    """Whether the byte budget is reached: what can wait should."""

    def send(self, data: bytes) -> None:
        """Append bytes; they are written with the rest of this turn of the event loop."""
        ...

    def send_publish(self, head: bytes, packet_id: bytes, payload: bytes) -> None:
        """Append a PUBLISH in its three parts."""
        ...


class Watcher(Protocol[S_contra]):
    """Told what a session cannot do by itself."""

    def lagging(self, session: S_contra) -> None:
        """A tail left the live stream."""
        ...

    def moved(self, session: S_contra) -> None:
        """Cursors of a session went forward."""
        ...

    def ids_wanted(self, session: S_contra) -> None:
        """Messages wait for packet ids to be reserved."""
        ...

    def dropped(self, reason: str) -> None:
        """A message was given up."""
        ...


class Limits(Protocol):
    """What a session may hold."""

    max_inflight: int
    max_queued: int

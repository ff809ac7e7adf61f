"""The interfaces that a session needs."""

from typing import Protocol, TypeVar

S_contra = TypeVar("S_contra", contravariant=True)


class Outbox(Protocol):
    """The outgoing bytes of one connection."""

    full: bool
    """Whether the byte budget is exceeded. No message is sent then; acknowledgements still are."""

    def send(self, data: bytes) -> None:
        """Append whole packets. They are written at the end of this turn of the event loop."""
        ...

    @property
    def queue_room(self) -> int:
        """Bytes that may be queued for the client by the session."""
        ...

    def queued(self, size: int) -> None:
        """The session has queued so many bytes now: they count as memory of the client."""
        ...

    def send_publish(self, head: bytes, packet_id: bytes, payload: bytes) -> None:
        """Append a PUBLISH in three parts. `packet_id`: two bytes, big-endian."""
        ...


class Watcher(Protocol[S_contra]):
    """The events of a session."""

    def lagging(self, session: S_contra) -> None:
        """A tail is behind: its log must be read."""
        ...

    def moved(self, session: S_contra) -> None:
        """Cursors of a session may have moved and should be stored."""
        ...

    def ids_wanted(self, session: S_contra) -> None:
        """Messages wait for packet ids to be reserved."""
        ...

    def dropped(self, reason: str) -> None:
        """A message was dropped. `reason` is the name of its counter in the metrics."""
        ...


class Limits(Protocol):
    """The limits of a session."""

    max_inflight: int
    """Messages sent with QoS 1 or 2 and not acknowledged."""
    max_queued: int
    """Messages that wait for room in the window."""
    max_queued_bytes: int
    """Bytes of their topics and payloads."""

"""The transport of a connection: TCP or WebSocket."""

from typing import Protocol


class Transport(Protocol):
    """A byte stream to one client, with the methods of asyncio's transports."""

    def write(self, data: bytes) -> None:
        """Send bytes, or buffer them. Does nothing once the client is gone."""
        ...

    def get_write_buffer_size(self) -> int:
        """The number of buffered bytes."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        """End the stream when the buffer is written."""
        ...

    def abort(self) -> None:
        """End the stream at once. Buffered bytes are lost."""
        ...

"""What a connection writes to."""

from typing import Protocol


class Transport(Protocol):
    """A stream to one peer, as asyncio's transports are."""

    def write(self, data: bytes) -> None:
        """Send bytes, or buffer them. Does nothing once the peer is gone."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that the peer has not taken yet."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        """End the stream once the buffer is written."""
        ...

    def abort(self) -> None:
        """End the stream at once; what is buffered is lost."""
        ...

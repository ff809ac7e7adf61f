"""A connection that has come, and has a slot."""

from typing import NamedTuple


class Arrival(NamedTuple):
    """The client's address and port, and the seconds until it may be read: others of its address came first.

    Behind a proxy that tells it, the address is the client's, not the proxy's."""

    address: str
    port: int
    wait: float

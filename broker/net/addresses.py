"""The limits of an address: its connections, and how fast they come. Sans-IO: `now` is passed in."""

import ipaddress
from collections import Counter
from collections.abc import Sequence

from broker.domain.rates import Buckets, network_of

_BURST_SECONDS = 10
"""A whole office may come back at once."""


class Addresses:
    """Counts the connections of each address.

    `most` connections of one address at a time, and `per_second` new ones. Of more, each has to wait for its
    turn, up to `patience` seconds. The addresses and networks of `proxies` have no limits. `limited` counts
    how often a limit had an effect, by its key.
    """

    def __init__(
        self, most: int, per_second: int, patience: float, proxies: Sequence[str], limited: Counter[str]
    ) -> None:
        self._most = most
        self._patience = patience
        self._proxies = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._limited = limited
        self._connections: dict[str, int] = {}
        # A bucket for each address that has come of late. Those of addresses with connections are bounded by
        # the connections, so a flood of addresses displaces nothing that matters.
        self._rates = Buckets(per_second * _BURST_SECONDS, seconds=_BURST_SECONDS)

    def allow(self, most: int, per_second: int, now: float) -> None:
        """Change the limits. Those that are connected stay."""
        self._most = most
        self._rates.resize(per_second * _BURST_SECONDS, now)

    def enter(self, address: str, now: float) -> float | None:
        """Count a new connection. Returns the seconds after which its CONNECT may be read, mostly 0; or None
        if the connection must be closed, and then it is not counted."""
        if self._proxies and self.is_proxy(address):
            return 0.0
        network = network_of(address)
        connections = self._connections.get(network, 0)
        if connections >= self._most:
            self._limited["connections_per_address"] += 1
            return None
        wait = self._rates.claim(network, now, self._patience)
        if wait:
            self._limited["connects_per_second"] += 1
            if wait > self._patience:
                return None
        self._connections[network] = connections + 1
        return wait

    def leave(self, address: str) -> None:
        """A connection that was counted has ended."""
        network = network_of(address)
        connections = self._connections.get(network, 0) - 1
        if connections > 0:
            self._connections[network] = connections
        else:
            self._connections.pop(network, None)

    def is_proxy(self, address: str) -> bool:
        """Whether an address is one of the `proxies`."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            return self.is_proxy(str(parsed.ipv4_mapped))
        return any(parsed in proxy for proxy in self._proxies)

"""Token buckets by key. Sans-IO: `now` is passed in, in seconds of any clock."""

import ipaddress

MOST_KEYS = 10_000
_MINUTE = 60.0
_LEAST_WAIT = 0.001  # shorter waits are rounding errors of floating-point sums


class Buckets:
    """Token buckets by key. Each holds `burst` tokens and refills within a minute.

    For each key it keeps the time at which the bucket will be full again. Full buckets are not kept. At
    `most` keys, the fullest tenth is dropped: a flood of new keys displaces other new keys, never the
    empty bucket of a key that is blocked.
    """

    def __init__(self, burst: int, most: int = MOST_KEYS) -> None:
        self._most = most
        self._each = _MINUTE / burst
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: str, now: float) -> float:
        """Seconds until a token can be taken; 0 if there is one now."""
        missing = max(self._full_at.get(key, now) - now, 0.0)
        wait = missing + self._each - _MINUTE
        return wait if wait > _LEAST_WAIT else 0.0

    def take(self, key: str, now: float) -> None:
        """Take a token."""
        if key not in self._full_at and len(self._full_at) >= self._most:
            self._make_room(now)
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._each

    def give_back(self, key: str) -> None:
        """Put back a token that was taken."""
        if key in self._full_at:
            self._full_at[key] -= self._each

    def _make_room(self, now: float) -> None:
        kept = sorted((full_at, key) for key, full_at in self._full_at.items() if full_at > now)
        forgotten = max(len(kept) - self._most + self._most // 10 + 1, 0)
        self._full_at = {key: full_at for full_at, key in kept[forgotten:]}


def network_of(address: str) -> str:
    """What counts as one address. For IPv6 it is the /64 network, as one customer has at least that."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)

"""Token buckets: how often something may happen. Sans-IO: `now` is passed in, in seconds of any clock.

Buckets      by key; for what happens now and then, such as logins
Allowances   by user; for what happens thousands of times a second: counting down costs no clock
"""

import ipaddress
from functools import lru_cache

MOST_KEYS = 10_000
MINUTE = 60.0
_LEAST_WAIT = 0.001  # shorter waits are rounding errors of floating-point sums
_PAUSE = 0.05
"""Seconds for which an allowance saves up before its holder goes on. Without it a holder that has too little
would be woken for each single token."""
_BURST_SECONDS = 2
_MOST_DEBT_SECONDS = 10
"""What arrived together may be far more than there is. But a holder is not read from meanwhile, and must not
look as if it were gone."""
_SWEEP = 1000
"""Allowances of users without a connection that are kept before they are looked through."""


class Buckets:
    """Token buckets by key. Each holds `burst` tokens and refills within `seconds`.

    For each key it keeps the time at which the bucket will be full again. Full buckets are not kept. At
    `most` keys, the fullest tenth is dropped: a flood of new keys displaces other new keys, never the
    empty bucket of a key that is blocked.
    """

    def __init__(self, burst: int, most: int = MOST_KEYS, seconds: float = MINUTE) -> None:
        self._most = most
        self._seconds = seconds
        self._each = seconds / burst
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def resize(self, burst: int, now: float) -> None:
        """Change how many tokens a bucket holds. What was taken stays taken."""
        each = self._seconds / burst
        scale = each / self._each
        self._full_at = {
            key: now + min((full_at - now) * scale, self._seconds)
            for key, full_at in self._full_at.items()
            if full_at > now
        }
        self._each = each

    def wait(self, key: str, now: float) -> float:
        """Seconds until a token can be taken; 0 if there is one now."""
        missing = max(self._full_at.get(key, now) - now, 0.0)
        wait = missing + self._each - self._seconds
        return wait if wait > _LEAST_WAIT else 0.0

    def take(self, key: str, now: float) -> None:
        """Take a token. If there is none, the bucket owes it: the next one comes so much later."""
        if key not in self._full_at and len(self._full_at) >= self._most:
            self._make_room(now)
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._each

    def claim(self, key: str, now: float, patience: float) -> float:
        """Take a token unless it would have to be waited for longer than `patience`. Returns the wait."""
        full_at = self._full_at.get(key)
        if full_at is None:
            if len(self._full_at) >= self._most:
                self._make_room(now)
            full_at = now
        elif full_at < now:
            full_at = now
        full_at += self._each
        wait = full_at - now - self._seconds
        if wait <= patience:
            self._full_at[key] = full_at
        return wait if wait > _LEAST_WAIT else 0.0

    def give_back(self, key: str) -> None:
        """Put back a token that was taken."""
        if key in self._full_at:
            self._full_at[key] -= self._each

    def _make_room(self, now: float) -> None:
        kept = sorted((full_at, key) for key, full_at in self._full_at.items() if full_at > now)
        forgotten = max(len(kept) - self._most + self._most // 10 + 1, 0)
        self._full_at = {key: full_at for full_at, key in kept[forgotten:]}


class Allowance:
    """A bucket of tokens. Its holders `take` one after the other; who is refused one asks `wait`."""

    __slots__ = ("_at", "_burst", "_per_second", "holders", "left")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._at = now
        self.left = burst
        """The tokens there are, without those that have come since `wait` was called last."""
        self.holders = 0

    def take(self, tokens: int) -> bool:
        """Take tokens. Returns False if there were too few, and the allowance owes the rest."""
        self.left -= tokens
        return self.left >= 0

    def hold(self) -> None:
        """There is one more holder."""
        self.holders += 1

    def release(self) -> None:
        """There is one holder less."""
        self.holders -= 1

    def wait(self, now: float) -> float:
        """Add the tokens that have come. Returns the seconds for which a holder must pause, 0 for none."""
        left = self.left + (now - self._at) * self._per_second
        self.left = min(self._burst, max(left, -_MOST_DEBT_SECONDS * self._per_second))
        self._at = now
        return 0.0 if self.left >= 0 else _PAUSE - self.left / self._per_second

    def allow(self, per_second: float, now: float) -> None:
        """Change how many tokens come from now on."""
        self.wait(now)
        self._per_second = per_second
        self._burst = per_second * _BURST_SECONDS
        self.left = min(self.left, self._burst)

    def is_full(self, now: float) -> bool:
        """Whether it is as good as a new one."""
        return self.left + (now - self._at) * self._per_second >= self._burst


class Allowances:
    """An allowance for each user, shared by all connections of the user: `per_second` tokens a second, and
    those of two seconds at once.

    An allowance outlives the last connection until it is full again: a new connection is no new allowance.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._users: dict[str, Allowance] = {}
        self._sweep_at = _SWEEP

    def __len__(self) -> int:
        return len(self._users)

    def allow(self, per_second: float, now: float) -> None:
        """Change the tokens a second of all users."""
        self._per_second = per_second
        for allowance in self._users.values():
            allowance.allow(per_second, now)

    def hold(self, user: str, now: float) -> Allowance:
        """The allowance for a connection of a user, to be given to `release` when it ends. Anonymous
        clients (user "") are strangers to each other: each connection has its own."""
        if not user:
            return self._new(now)
        if user not in self._users:
            self._sweep(now)
            self._users[user] = self._new(now)
        allowance = self._users[user]
        allowance.hold()
        return allowance

    @staticmethod
    def release(allowance: Allowance) -> None:
        """A connection has ended."""
        allowance.release()

    def _new(self, now: float) -> Allowance:
        return Allowance(self._per_second, self._per_second * _BURST_SECONDS, now)

    def _sweep(self, now: float) -> None:
        if len(self._users) < self._sweep_at:
            return
        self._users = {
            user: allowance
            for user, allowance in self._users.items()
            if allowance.holders or not allowance.is_full(now)
        }
        self._sweep_at = _SWEEP + 2 * len(self._users)


def network_of(address: str) -> str:
    """What counts as one address: `address` as a socket names it, and for IPv6 its /64 network, as one
    customer has at least that."""
    # Every connection comes by here, and most by IPv4.
    return _network_of_ipv6(address) if ":" in address else address[:64]


@lru_cache(maxsize=1024)
def _network_of_ipv6(address: str) -> str:
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address[:64]
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))

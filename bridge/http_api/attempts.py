"""How often somebody may try to log in. Sans-IO: `now` is passed in, in seconds of any clock.

What is counted are attempts that failed: one is taken before the password is looked at, so that many
at once do not get past, and is given back when it was right.

An address has a bucket of its own, against one machine that tries many users. A user has one against
many machines that try one user. A stranger can empty it, so it must not stand between users and their
own account: an address that a user has logged in from has, for that user, a bucket of its own. What a
stranger achieves is that the user cannot log in *from a new address* while the attack lasts.
"""

import ipaddress
from collections.abc import Callable

MOST_KEYS = 10_000
_MINUTE = 60.0
_LEAST_WAIT = 0.001  # less is what sums of floating-point numbers are off by


class TooManyAttemptsError(Exception):
    """Not now; perhaps in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many attempts, try again later")
        self.seconds = seconds


class Buckets:
    """Token buckets by key. Each holds `burst`, and refills by that much in a minute.

    Kept is, for each key, when its bucket will be full again; of those that are full nothing. With
    `most` keys, the fullest tenth is forgotten: new keys, however many, push each other out and not
    the one that is blocked.
    """

    def __init__(self, burst: int, most: int = MOST_KEYS) -> None:
        self._most = most
        self._each = _MINUTE / burst
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: str, now: float) -> float:
        """Seconds until one can be taken; 0 is at once."""
        missing = max(self._full_at.get(key, now) - now, 0.0)
        wait = missing + self._each - _MINUTE
        return wait if wait > _LEAST_WAIT else 0.0

    def take(self, key: str, now: float) -> None:
        """Take one."""
        if key not in self._full_at and len(self._full_at) >= self._most:
            self._make_room(now)
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._each

    def give_back(self, key: str) -> None:
        """One that was taken does not count."""
        if key in self._full_at:
            self._full_at[key] -= self._each

    def _make_room(self, now: float) -> None:
        kept = sorted((full_at, key) for key, full_at in self._full_at.items() if full_at > now)
        forgotten = max(len(kept) - self._most + self._most // 10 + 1, 0)
        self._full_at = {key: full_at for full_at, key in kept[forgotten:]}


class Attempt:
    """An attempt to log in that is under way and counted."""

    def __init__(self, give_back: Callable[[], None], remember: Callable[[], None]) -> None:
        self.give_back = give_back
        """Nothing was found out: the attempt does not count."""
        self._remember = remember

    def succeeded(self) -> None:
        """It was who they said they were: the attempt does not count, and the address is known."""
        self.give_back()
        self._remember()


class Attempts:
    """Attempts by user and by address; `per_user` and `per_address` in a minute."""

    def __init__(self, per_user: int, per_address: int, most: int = MOST_KEYS) -> None:
        self._most = most
        self._users = Buckets(per_user, most)
        self._addresses = Buckets(per_address, most)
        self._known: dict[str, None] = {}
        """Users and addresses they have logged in from, the latest last."""

    def begin(self, user: str, address: str, now: float) -> Attempt:
        """Count an attempt.

        Raises:
            TooManyAttemptsError: nothing was counted.
        """
        network = network_of(address)
        pair = f"{user} {network}"
        key = pair if pair in self._known else user
        wait = max(self._users.wait(key, now), self._addresses.wait(network, now))
        if wait:
            raise TooManyAttemptsError(wait)
        self._users.take(key, now)
        self._addresses.take(network, now)

        def give_back() -> None:
            self._users.give_back(key)
            self._addresses.give_back(network)

        return Attempt(give_back, lambda: self._remember(pair))

    def count(self, address: str, now: float) -> None:
        """Count something else that an address does.

        Raises:
            TooManyAttemptsError: nothing was counted.
        """
        network = network_of(address)
        if wait := self._addresses.wait(network, now):
            raise TooManyAttemptsError(wait)
        self._addresses.take(network, now)

    def _remember(self, pair: str) -> None:
        self._known.pop(pair, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[pair] = None


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 a /64, which is what one customer has at least."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)

"""Rate limits for passwords. Sans-IO: `now` is passed in, in seconds of a monotonic clock.

All ways in share one `Attempts`: what fails over MQTT counts over HTTP, and the other way round. Only
failed attempts count. A token is taken before the password is checked, so that concurrent attempts cannot
exceed the limit, and is given back if the password was right.

Each address has a bucket, against one machine that tries many users. Each user has a bucket, against
many machines that try one user. Strangers can empty both, but must not lock the user out: so each address
that the user has logged in from has a bucket of its own for that user, and nothing else is asked there.
While an attack lasts, the user can still log in from known addresses, only not from a new one.
"""

import ipaddress
from collections.abc import Callable, Iterable

from broker.domain.rates import MOST_KEYS, Buckets, network_of


class TooManyAttemptsError(Exception):
    """There were too many attempts. The next one may succeed after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many attempts, try again later")
        self.seconds = seconds


class Attempt:
    """A login attempt that is under way and counted."""

    def __init__(self, give_back: Callable[[], None], remember: Callable[[], None]) -> None:
        self.give_back = give_back
        """Uncount the attempt: the password could not be checked."""
        self._remember = remember

    def succeeded(self) -> None:
        """The password was right: uncount the attempt, and remember the address as known."""
        self.give_back()
        self._remember()


class Attempts:
    """Limits attempts to `per_user` and `per_address` in a minute. `trusted` are the addresses and networks
    of proxies, which have no limit: many users share them."""

    def __init__(
        self, per_user: int, per_address: int, trusted: Iterable[str] = (), most: int = MOST_KEYS
    ) -> None:
        self._most = most
        self._users = Buckets(per_user, most)
        self._addresses = Buckets(per_address, most)
        self._trusted = [ipaddress.ip_network(network) for network in trusted]
        self._known: dict[str, None] = {}
        """Users and addresses they have logged in from (`user address`), the latest last."""

    def check(self, user: str, address: str, now: float) -> None:
        """Refuse an attempt that `begin` would refuse. Nothing is counted.

        Raises:
            TooManyAttemptsError: the limit is reached.
        """
        if wait := max(buckets.wait(key, now) for buckets, key in self._limits(user, address)):
            raise TooManyAttemptsError(wait)

    def begin(self, user: str, address: str, now: float) -> Attempt:
        """Count a login attempt.

        Raises:
            TooManyAttemptsError: the limit is reached; this attempt is not counted.
        """
        self.check(user, address, now)
        limits = self._limits(user, address)
        for buckets, key in limits:
            buckets.take(key, now)

        def give_back() -> None:
            for buckets, key in limits:
                buckets.give_back(key)

        return Attempt(give_back, lambda: self.remember(user, address))

    def count(self, address: str, now: float) -> None:
        """Count another action of an address, e.g. a registration.

        Raises:
            TooManyAttemptsError: the limit is reached; this action is not counted.
        """
        if self._is_trusted(address):
            return
        network = network_of(address)
        if wait := self._addresses.wait(network, now):
            raise TooManyAttemptsError(wait)
        self._addresses.take(network, now)

    def line(self, user: str, address: str) -> str:
        """The queue an attempt waits in: one for each address, and one for each user behind a trusted
        proxy. Queues are served in turns."""
        return f"user {user}" if self._is_trusted(address) else network_of(address)

    def remember(self, user: str, address: str) -> None:
        """The user has logged in from this address. A trusted proxy says nothing about who is there."""
        if self._is_trusted(address):
            return
        pair = _pair(user, address)
        self._known.pop(pair, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[pair] = None

    def _limits(self, user: str, address: str) -> list[tuple[Buckets, str]]:
        """The buckets that an attempt takes a token from."""
        if self._is_trusted(address):
            return [(self._users, user)]
        pair = _pair(user, address)
        if pair in self._known:
            return [(self._users, pair)]
        return [(self._users, user), (self._addresses, network_of(address))]

    def _is_trusted(self, address: str) -> bool:
        parsed = _parse(address) if self._trusted else None
        return parsed is not None and any(parsed in network for network in self._trusted)


def _pair(user: str, address: str) -> str:
    return f"{user} {network_of(address)}"


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, as IPv4 if it is mapped into IPv6; None if it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed

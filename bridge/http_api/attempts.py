"""Rate limits for logins. Sans-IO: `now` is passed in, in seconds of any clock.

Only failed attempts count. A token is taken before the password is checked, so that concurrent attempts
cannot exceed the limit, and is given back if the password was right.

Each address has a bucket, against one machine that tries many users. Each user has a bucket, against
many machines that try one user. Strangers can empty a user's bucket, but must not lock the user out:
so each address that the user has logged in from has a bucket of its own for that user. While an attack
lasts, the user can still log in from known addresses, only not from a new one.
"""

from collections.abc import Callable

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
    """Limits attempts to `per_user` and `per_address` in a minute."""

    def __init__(self, per_user: int, per_address: int, most: int = MOST_KEYS) -> None:
        self._most = most
        self._users = Buckets(per_user, most)
        self._addresses = Buckets(per_address, most)
        self._known: dict[str, None] = {}
        """Users and addresses they have logged in from (`user address`), the latest last."""

    def begin(self, user: str, address: str, now: float) -> Attempt:
        """Count a login attempt.

        Raises:
            TooManyAttemptsError: the limit is reached; this attempt is not counted.
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
        """Count another action of an address, e.g. a registration.

        Raises:
            TooManyAttemptsError: the limit is reached; this action is not counted.
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

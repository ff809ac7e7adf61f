"""How often a user may do what reaches strangers, or what stays for ever."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.domain.errors import RefusedError
from broker.domain.rates import Buckets

_HOUR = 3600.0


class Quota:
    """`most` times an hour, for each user or pair (see `reaching`). `limit` is its key in the section
    `limits`, under which `limited` counts how often it had an effect. `now` is a monotonic clock in
    seconds."""

    def __init__(self, limit: str, most: int, now: Callable[[], float], limited: Counter[str]) -> None:
        self._limit = limit
        self._most = most
        self._now = now
        self._limited = limited
        self._buckets = Buckets(most, seconds=_HOUR)

    @contextmanager
    def once(self, user: str, even_if: tuple[type[RefusedError], ...] = ()) -> Iterator[None]:
        """Count what is done in this context. It does not count if it fails, except by an error of `even_if`.

        Raises:
            RefusedError: `quota`: the user has done it too often.
        """
        self.need(user)
        self.count(user)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, even_if):
                self._buckets.give_back(user)
            raise

    def allow(self, most: int) -> None:
        """Change how often. What was done before counts."""
        self._most = most
        self._buckets.resize(most, self._now())

    def need(self, user: str) -> None:
        """Refuse (`quota`) if the user has done it too often."""
        if wait := self._buckets.wait(user, self._now()):
            self._limited[self._limit] += 1
            raise RefusedError("quota", f"at most {self._most} an hour: try again in {wait:.0f} s")

    def count(self, user: str) -> None:
        """The user has done it, whether or not too often."""
        self._buckets.take(user, self._now())


class Quotas:
    """The quotas of a node."""

    def __init__(
        self,
        groups: int,
        contact_requests: int,
        joins: int,
        repeats: int,
        now: Callable[[], float],
        limited: Counter[str],
    ) -> None:
        self.groups = Quota("groups_per_hour", groups, now, limited)
        self.contact_requests = Quota("contact_requests_per_hour", contact_requests, now, limited)
        self.joins = Quota("joins_per_hour", joins, now, limited)
        self.repeats = Quota("repeats_per_hour", repeats, now, limited)
        """Of requests and joins, by the user and whom they reach; and of removals from a group."""

    def allow(self, groups: int, contact_requests: int, joins: int, repeats: int) -> None:
        """Change all of them."""
        self.groups.allow(groups)
        self.contact_requests.allow(contact_requests)
        self.joins.allow(joins)
        self.repeats.allow(repeats)


def reaching(user: str, reached: str) -> str:
    """The key under which the requests of a user to another, or to a group, are counted."""
    return f"{user} {reached}"


def removed(user: str, group_id: str) -> str:
    """The key under which the removals of a user from a group are counted, whoever removes them."""
    return f"{user} removed from {group_id}"

"""Subscriptions as tests write them down."""

from collections.abc import Mapping
from itertools import starmap

from broker.domain.subscription import Subscription, by_filter


def subscribed(filters: Mapping[str, int]) -> dict[str, Subscription]:
    """Filter -> QoS, as a session keeps it."""
    return by_filter(starmap(Subscription, filters.items()))

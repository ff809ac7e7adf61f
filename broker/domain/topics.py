"""The topic grammar: the kinds of topics, and which filter matches which topic.

A table topic (docs/topics.md) is `users/<id>/...` or `groups/<id>[/typing]`. `$SYS/...` belongs to
the server. Any other topic is `OTHER`: refused unless the configuration opens it (`topics.open`).
"""

import enum
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from broker.domain.ids import is_id


class Kind(enum.IntEnum):
    """The kinds of topics."""

    INBOX = 1
    GROUP = 2
    PRESENCE = 3
    TYPING = 4
    GROUP_TYPING = 5
    EVENTS = 6
    RPC = 7
    REPLIES = 8
    SYS = 9
    OTHER = 10


MAX_LEVELS = 128
"""The most levels of a topic or filter, as in EMQX. Each level costs memory in the routing tables."""

LOG_KINDS = frozenset((Kind.INBOX, Kind.GROUP))
"""Topics whose publishes are stored as messages."""

CURSOR_KINDS = LOG_KINDS | {Kind.EVENTS}
"""Topics that a session reads from a log, each by a cursor of its own."""


class Topic(NamedTuple):
    """A parsed topic name."""

    name: str
    kind: Kind
    owner: str
    """The user or group id in the name; empty for `$SYS` and other topics."""
    method: str = ""
    """The method of an RPC topic."""


_USER_KINDS = {
    "inbox": Kind.INBOX,
    "presence": Kind.PRESENCE,
    "typing": Kind.TYPING,
    "events": Kind.EVENTS,
    "replies": Kind.REPLIES,
}


_CACHED_LENGTH = 256
"""Characters."""


def parse_topic(name: str) -> Topic:
    """Parse a topic name."""
    # The same names recur, so they are cached. Long names are not: a client could fill the memory with them.
    return _parse_and_remember(name) if len(name) <= _CACHED_LENGTH else _parse(name)


def _parse(name: str) -> Topic:
    levels = name.split("/")
    root = levels[0]
    if root == "users" and len(levels) >= 3 and is_id(levels[1]):
        if len(levels) == 3 and (kind := _USER_KINDS.get(levels[2])):
            return Topic(name, kind, levels[1])
        if len(levels) == 4 and levels[2] == "rpc" and levels[3]:
            return Topic(name, Kind.RPC, levels[1], levels[3])
    elif root == "groups" and len(levels) >= 2 and is_id(levels[1]):
        if len(levels) == 2:
            return Topic(name, Kind.GROUP, levels[1])
        if len(levels) == 3 and levels[2] == "typing":
            return Topic(name, Kind.GROUP_TYPING, levels[1])
    elif root.startswith("$"):
        return Topic(name, Kind.SYS, "")
    return Topic(name, Kind.OTHER, "")


_parse_and_remember = lru_cache(maxsize=16384)(_parse)


def inbox_topic(user: str) -> str:
    """The inbox of a user."""
    return f"users/{user}/inbox"


def group_topic(group: str) -> str:
    """The topic of a group."""
    return f"groups/{group}"


def group_topics(group: str) -> tuple[str, ...]:
    """The topics of a group that a member may read."""
    return f"groups/{group}", f"groups/{group}/typing"


def presence_topic(user: str) -> str:
    """The presence topic of a user."""
    return f"users/{user}/presence"


def user_topics(user: str) -> tuple[str, ...]:
    """The topics below `users/<user>/` that the user may read."""
    return tuple(f"users/{user}/{leaf}" for leaf in _USER_KINDS)


def is_wild(topic_filter: str) -> bool:
    """Whether a filter holds a wildcard."""
    return "+" in topic_filter or "#" in topic_filter


def is_valid_filter(topic_filter: str) -> bool:
    """Whether a filter is not empty and has its wildcards where [MQTT-4.7.1-2] and [MQTT-4.7.1-3] allow
    them."""
    if not topic_filter:  # [MQTT-4.7.3-1]
        return False
    levels = topic_filter.split("/")
    for i, level in enumerate(levels):
        if "#" in level and (level != "#" or i != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a topic name (MQTT 4.7)."""
    if topic.startswith("$") and topic_filter[0] in "+#":  # [MQTT-4.7.2-1]
        return False
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    for i, level in enumerate(wanted):
        if level == "#":
            return True  # "a/#" matches "a" too: the loop reached it with all of "a" matched
        if i >= len(levels) or (level != "+" and level != levels[i]):
            return False
    return len(wanted) == len(levels)


def overlaps(one: str, other: str) -> bool:
    """Whether some topic could match both filters."""
    a, b = one.split("/"), other.split("/")
    # [MQTT-4.7.2-1]: a leading wildcard does not match topics that begin with "$".
    if (a[0] in "+#" and b[0].startswith("$")) or (b[0] in "+#" and a[0].startswith("$")):
        return False
    for left, right in zip(a, b, strict=False):
        if left == "#" or right == "#":
            return True
        if left != right and "+" not in (left, right):
            return False
    # All common levels agree. The longer filter may still end in "#" right after them: "a/#" matches "a".
    longer = a if len(a) > len(b) else b
    return len(a) == len(b) or longer[min(len(a), len(b))] == "#"


def any_match(filters: Iterable[str], topic: str) -> bool:
    """Whether one of the filters matches the topic."""
    return any(matches(f, topic) for f in filters)

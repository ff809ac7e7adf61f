"""Conversations and the logs behind them.

Every conversation is a log, named by its id: `p:alice:bob` or `g:team`. An inbox is a log too, named by
its topic. Its entries refer to messages of conversations. A group's topic and its conversation are the
same log.
"""

from broker.domain.topics import Kind, Topic, group_topic


def private_id(one: str, other: str) -> str:
    """The conversation of two users. Sorted, so both users get the same id."""
    return f"p:{one}:{other}" if one <= other else f"p:{other}:{one}"


def group_id(group: str) -> str:
    """The conversation of a group."""
    return f"g:{group}"


def participants(conversation_id: str) -> tuple[str, str] | None:
    """The two users of a private conversation; None for any other id."""
    match conversation_id.split(":"):
        case ["p", one, other] if one <= other:
            return one, other
    return None


def other_of(conversation_id: str, user: str) -> str:
    """The other user of a private conversation; `user` in a conversation with oneself."""
    one, other = participants(conversation_id) or (user, user)
    return one if other == user else other


def group_of(conversation_id: str) -> str | None:
    """The group of a group conversation; None for any other id."""
    match conversation_id.split(":"):
        case ["g", group]:
            return group
    return None


def is_conversation(log: str) -> bool:
    """Whether a log is that of a conversation, and not an inbox or a user's events."""
    return not log.startswith("users/")


def log_topic(log: str) -> str:
    """The topic under which a log is read. A private conversation has no topic: its id is returned."""
    group = group_of(log)
    return log if group is None else group_topic(group)


def log_name(topic: Topic) -> str:
    """The log behind an inbox or group topic."""
    return group_id(topic.owner) if topic.kind is Kind.GROUP else topic.name

"""Conversations and the logs behind them.

Every conversation is a log. Its name is its id: `p:alice:bob` or `g:team`. An inbox is a log
too, named after its topic, whose entries refer to messages of conversations.
The topic of a group and its conversation are one and the same log.
"""

from broker.domain.topics import Kind, Topic, group_topic


def private_id(one: str, other: str) -> str:
    """The conversation of two users, the same whichever of them asks."""
    return f"p:{one}:{other}" if one <= other else f"p:{other}:{one}"


def group_id(group: str) -> str:
    """The conversation of a group."""
    return f"g:{group}"


def participants(conversation_id: str) -> tuple[str, str] | None:
    """The two users of a private conversation, or None if the id is not of one."""
    match conversation_id.split(":"):
        case ["p", one, other] if one <= other:
            return one, other
    return None


def group_of(conversation_id: str) -> str | None:
    """The group of a group conversation, or None if the id is not of one."""
    match conversation_id.split(":"):
        case ["g", group]:
            return group
    return None


def log_topic(log: str) -> str:
    """The topic whose readers read a log; a private conversation has none and is its own."""
    group = group_of(log)
    return log if group is None else group_topic(group)


def log_name(topic: Topic) -> str:
    """The log a reader of an inbox or group topic reads."""
    return group_id(topic.owner) if topic.kind is Kind.GROUP else topic.name

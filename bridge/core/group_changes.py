"""Changes of groups on their way to the directory, the group's log and the users' events."""

from collections.abc import Sequence
from typing import Any

from bridge.core.notices import Notices
from bridge.core.turns import Turns
from broker.domain.topics import group_topic
from broker.ports import BrokerPort, Directory, GroupWrite, Notice

NAMED = 100
"""Users a system entry names; of more it gives the count."""


class GroupChanges:
    """Writes changes of groups, their notices and events."""

    def __init__(self, directory: Directory, broker: BrokerPort, notices: Notices) -> None:
        self._directory = directory
        self._broker = broker
        self._notices = notices
        self.turns: Turns[str] = Turns()
        """By group."""

    async def write(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        """One change; on return it holds and its notices are in the log."""
        await self._directory.write_group(write, notices)
        await self._notices.publish(notices)

    async def settle(self, group_id: str) -> None:
        """On return, what the changes so far lead to is in the group's log."""
        await self._notices.settle(group_topic(group_id))

    async def remove_user(self, user: str, groups: Sequence[str], notices: Sequence[Notice]) -> None:
        """Remove a user who is in these groups. As `write`."""
        await self._directory.remove_account(user, groups, notices)
        await self._notices.publish(notices)

    async def tell(self, users: Sequence[str], event: str, group_id: str, by: str) -> None:
        """Tell users what they cannot learn from the group's log."""
        if users:
            told = {"event": "group", "type": event, "group_id": group_id, "by": by}
            await self._broker.emit(users, told)


def named(users: Sequence[str]) -> dict[str, Any]:
    """How a system entry names users."""
    if len(users) <= NAMED:
        return {"user_ids": list(users)}
    return {"user_ids": list(users[:NAMED]), "count": len(users)}

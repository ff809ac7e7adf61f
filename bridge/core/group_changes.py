"""Writes changes of groups: to the directory, to the group's log and to the events of users."""

from collections.abc import Sequence
from typing import Any

from bridge.core.notices import Notices
from bridge.core.turns import Turns
from broker.domain.errors import RefusedError
from broker.domain.topics import group_topic
from broker.ports import BrokerPort, Directory, GroupWrite, Notice

NAMED = 100
"""How many users a system entry names at most. With more it also has their number, as `count`."""


class GroupChanges:
    """Writes changes of groups, their notices and events. `most_members` is the largest size of a group."""

    def __init__(self, directory: Directory, broker: BrokerPort, notices: Notices, most_members: int) -> None:
        self._directory = directory
        self._broker = broker
        self._notices = notices
        self.most_members = most_members
        self.turns: Turns[str] = Turns()
        """Locks by group id: changes of one group are made one at a time."""

    def reload(self, most_members: int) -> None:
        """Change the limit."""
        self.most_members = most_members

    def need_space(self, members: int) -> None:
        """Refuse (`quota`) a group of so many members if that is too many."""
        if members > self.most_members:
            raise RefusedError("quota", f"a group has at most {self.most_members} members")

    async def write(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        """Write one change of a group. On return it is in effect, and its notices are in the group's log
        unless the log's store failed; then they follow.

        Raises:
            DirectoryError: the directory refuses the change, e.g. `conflict`.
            StoreError: the directory failed.
        """
        await self._directory.write_group(write, notices)
        await self._notices.publish(notices)

    async def settle(self, group_id: str) -> None:
        """Publish the pending notices of a group. On return all its changes so far are in its log."""
        await self._notices.settle(group_topic(group_id))

    async def remove_user(self, user: str, groups: Sequence[str], notices: Sequence[Notice]) -> None:
        """Remove the account of a user who is a member of `groups`; otherwise like `write`."""
        await self._directory.remove_account(user, groups, notices)
        await self._notices.publish(notices)

    async def tell(self, users: Sequence[str], event: str, group_id: str, by: str) -> None:
        """Send an event to users who cannot read about the change in the group's log: those who were
        added, removed, banned, accepted or rejected, and admins who are asked."""
        if users:
            told = {"event": "group", "type": event, "group_id": group_id, "by": by}
            await self._broker.emit(users, told)


def named(users: Sequence[str]) -> dict[str, Any]:
    """The fields by which a system entry names users: `user_ids`, and `count` if they are too many."""
    if len(users) <= NAMED:
        return {"user_ids": list(users)}
    return {"user_ids": list(users[:NAMED]), "count": len(users)}

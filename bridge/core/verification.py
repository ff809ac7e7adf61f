"""The check of all stores of a node: the message store by its own means, then the directory, and what the
directory says about logs."""

from collections.abc import AsyncGenerator, Sequence

from broker.domain.conversation import group_id
from broker.domain.errors import StoreError
from broker.domain.topics import inbox_topic
from broker.ports import (
    Directory,
    DirectoryUpkeep,
    Finding,
    Group,
    Membership,
    MessageLog,
    Upkeep,
    Verified,
)

_PAGE = 200


class Verification:
    """Checks the stores, which may be in use meanwhile."""

    def __init__(
        self, upkeep: Upkeep, directory: Directory, directory_upkeep: DirectoryUpkeep, log: MessageLog
    ) -> None:
        self._upkeep = upkeep
        self._directory = directory
        self._directory_upkeep = directory_upkeep
        self._log = log

    async def run(self) -> AsyncGenerator[Verified, None]:
        """Everything, part by part. A part that cannot be read is a finding."""
        checks = {
            "message store": self._upkeep.verify(),
            "directory": self._file(),
            "accounts": self._accounts(),
            "groups": self._groups(),
        }
        try:
            for part, reports in checks.items():
                try:
                    async for report in reports:
                        yield report
                except StoreError as error:
                    yield Verified(part, 1, 1, 0, [Finding("damaged", part, f"cannot be read: {error}")])
        finally:
            for reports in checks.values():
                await reports.aclose()

    async def _file(self) -> AsyncGenerator[Verified, None]:
        lines = await self._directory_upkeep.check()
        yield Verified("directory", 1, 1, 1, [Finding("damaged", "directory", line) for line in lines])

    async def _accounts(self) -> AsyncGenerator[Verified, None]:
        after = ""
        while accounts := await self._directory.accounts(after, _PAGE):
            after = accounts[-1].user_id
            # The logs are read after the directory: they only grow.
            heads = await self._log.heads([inbox_topic(account.user_id) for account in accounts])
            findings = [
                Finding(
                    "cursor",
                    f"account {account.user_id}",
                    f"its inbox begins after {account.inbox_floor}, and the log ends at {head}",
                )
                for account in accounts
                if account.inbox_floor > (head := heads[inbox_topic(account.user_id)])
            ]
            yield Verified("accounts", 0, 1, len(accounts), findings)

    async def _groups(self) -> AsyncGenerator[Verified, None]:
        after = ""
        while groups := await self._directory.groups(after, _PAGE):
            after = groups[-1].group_id
            for group in groups:
                async for report in self._group(group):
                    yield report

    async def _group(self, group: Group) -> AsyncGenerator[Verified, None]:
        log, where = group_id(group.group_id), f"group {group.group_id}"
        after = ""
        while members := await self._directory.members(group.group_id, after, _PAGE):
            after = members[-1].user_id
            head = (await self._log.heads([log]))[log]
            findings = [
                Finding("cursor", where, f"{who} reads after {seq}, and the log ends at {head}")
                for who, seq in _floors(group, members)
                if seq > head
            ]
            findings += [
                Finding("dangling", where, f"there is no account of its member {user}")
                for user in await self._unknown(group.group_id, members)
            ]
            yield Verified("groups", 0, 1, len(members), findings)

    async def _unknown(self, group: str, members: Sequence[Membership]) -> list[str]:
        users = [member.user_id for member in members]
        known = await self._directory.profiles(users)
        unknown = [user for user in users if user not in known]
        if not unknown:
            return []
        # An account and its memberships are removed at once, perhaps since the members were read.
        return list(await self._directory.members_by_id(group, unknown))


def _floors(group: Group, members: Sequence[Membership]) -> list[tuple[str, int]]:
    return [("everybody", group.floor), *((member.user_id, member.joined_seq) for member in members)]

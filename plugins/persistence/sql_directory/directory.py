"""The directory: accounts, contacts and groups in SQL. What is said to the database is in
`accounts`, `contacts` and `groups`; here is who says it, and when."""

from collections.abc import Awaitable, Callable, Sequence

from broker.ports import (
    Account,
    Ban,
    Contact,
    DirectoryChange,
    Group,
    GroupWrite,
    JoinRequest,
    Membership,
    Notice,
    Profile,
)
from plugins.persistence.sql_directory import accounts, groups, notices
from plugins.persistence.sql_directory import contacts as relations
from plugins.persistence.sql_directory.database import Database, open_database
from plugins.persistence.sql_directory.models import BANS, JOIN_REQUESTS, MEMBERSHIPS


class SqlDirectory:
    """See `broker.ports.Directory`. `hash_password` turns a password into what is stored of it."""

    def __init__(
        self, database: Database, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
    ) -> None:
        self._database = database
        self._hash_password = hash_password
        self._now_ms = now_ms

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self._database.on_change(callback)

    async def close(self) -> None:
        """Finish what was given, then let go of the database."""
        await self._database.close()

    def _now(self) -> int:
        return self._now_ms() // 1000

    # --- accounts --------------------------------------------------------------------

    async def account(self, user_id: str) -> Account | None:
        return await self._database.read(accounts.account, user_id)

    async def accounts(self, after: str, limit: int) -> list[Account]:
        return await self._database.read(accounts.accounts, after, limit)

    async def add_account(
        self, user_id: str, password: str | None, role: str, inbox_floor: int = 0
    ) -> Account:
        """Tokens issued before are another's, who had the id."""
        hashed = None if password is None else await self._hash_password(password)
        account = Account(user_id, role, False, hashed, self._now_ms(), inbox_floor, self._now())
        await self._database.write(accounts.add, account)
        return account

    async def set_password(self, user_id: str, password: str) -> None:
        """Tokens of the second of the change are not accepted either: who knows the old password may
        have got one just before. Who issues one just after waits for the next second."""
        hashed = await self._hash_password(password)
        await self._database.write(accounts.change, user_id, {"password_hash": hashed}, self._now() + 1)

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        await self._database.write(accounts.change, user_id, {"disabled": disabled}, 0)

    async def remove_account(
        self, user_id: str, groups: Sequence[str] | None = None, notices: Sequence[Notice] = ()
    ) -> None:
        await self._database.write(accounts.remove, user_id, groups, notices)

    async def profiles(self, user_ids: Sequence[str]) -> dict[str, Profile]:
        return await self._database.read(accounts.profiles, user_ids)

    async def write_profile(self, profile: Profile) -> None:
        await self._database.write(accounts.write_profile, profile)

    async def revoke_token(self, user_id: str, token_id: str, expires_at: int) -> None:
        await self._database.write(accounts.revoke_token, user_id, token_id, expires_at, self._now())

    async def is_revoked(self, token_id: str) -> bool:
        return await self._database.read(accounts.is_revoked, token_id)

    async def revoke_tokens(self, user_id: str, before: int) -> None:
        """What was revoked by a later `before` stays revoked."""
        await self._database.write(accounts.change, user_id, {}, before)

    # --- contacts --------------------------------------------------------------------

    async def contacts_between(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Contact]:
        return await self._database.read(relations.between, pairs)

    async def contacts(self, user_id: str, after: str, limit: int) -> list[Contact]:
        return await self._database.read(relations.page, user_id, after, limit)

    async def write_contacts(self, contacts: Sequence[Contact], notices: Sequence[Notice]) -> None:
        await self._database.write(relations.write, contacts, notices)

    # --- groups ----------------------------------------------------------------------

    async def membership(self, group_id: str, user_id: str) -> Membership | None:
        return (await self.members_by_id(group_id, [user_id])).get(user_id)

    async def memberships(self, user_id: str) -> list[Membership]:
        return await self._database.read(groups.memberships, user_id)

    async def group(self, group_id: str) -> Group | None:
        return await self._database.read(groups.group, group_id)

    async def groups(self, after: str, limit: int) -> list[Group]:
        return await self._database.read(groups.groups, after, limit)

    async def groups_by_id(self, group_ids: Sequence[str]) -> dict[str, Group]:
        return await self._database.read(groups.groups_by_id, group_ids)

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        return await self._database.read(groups.places, MEMBERSHIPS, Membership, group_id, after, limit)

    async def members_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Membership]:
        return await self._database.read(groups.places_by_id, MEMBERSHIPS, Membership, group_id, user_ids)

    async def admins(self, group_id: str) -> list[Membership]:
        return await self._database.read(groups.admins, group_id)

    async def ban(self, group_id: str, user_id: str) -> Ban | None:
        return (await self.bans_by_id(group_id, [user_id])).get(user_id)

    async def bans_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Ban]:
        return await self._database.read(groups.places_by_id, BANS, Ban, group_id, user_ids)

    async def bans(self, group_id: str, after: str, limit: int) -> list[Ban]:
        return await self._database.read(groups.places, BANS, Ban, group_id, after, limit)

    async def join_request(self, group_id: str, user_id: str) -> JoinRequest | None:
        found = await self._database.read(
            groups.places_by_id, JOIN_REQUESTS, JoinRequest, group_id, [user_id]
        )
        return found.get(user_id)

    async def join_requests(self, group_id: str, after: str, limit: int) -> list[JoinRequest]:
        return await self._database.read(groups.places, JOIN_REQUESTS, JoinRequest, group_id, after, limit)

    async def write_group(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        await self._database.write(groups.write, write, notices)

    # --- notices ---------------------------------------------------------------------

    async def notices(self, limit: int) -> list[Notice]:
        return await self._database.read(notices.notices, limit)

    async def drop_notices(self, ids: Sequence[str]) -> None:
        await self._database.write(notices.drop_notices, ids)


def open_directory(
    url: str, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
) -> SqlDirectory:
    """Open the database at an SQLAlchemy URL and bring its tables up to date.

    Raises:
        StoreError: the database cannot be opened, or is newer than this program.
    """
    return SqlDirectory(open_database(url), hash_password, now_ms)

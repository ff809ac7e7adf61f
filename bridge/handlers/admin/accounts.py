"""Accounts and their tokens: `admin.users.…` and `admin.tokens.…`."""

from collections.abc import Callable
from typing import Literal

import msgspec

from bridge.core.accounts import NewAccounts, check_password, next_revocation
from bridge.core.operations import Caller, Done, Id, Operations, Parameters
from bridge.core.paging import page_of
from bridge.handlers.admin.existing import PAGE, PageParameters, need_account, need_enabled_account
from bridge.handlers.members import Members
from broker.domain.errors import RefusedError
from broker.ports import Account, Directory, Membership

MAX_TTL = 366 * 86400
"""The longest lifetime of a token, in seconds. For longer, an account needs a password."""

_OWNED_SHOWN = 5
"""How many groups a refusal names."""


class UserParameters(Parameters):
    """The user."""

    user_id: Id


class AddParameters(Parameters):
    """The new user."""

    user_id: Id
    password: str | None = None
    """Without it, the user can connect with tokens only."""
    role: Literal["", "user", "admin", "service"] = ""
    """Empty means `user`."""
    reuse_id: bool = False
    """Whether to give the id also if an account had it that was removed. The new account does not see that
    account's messages, but others may take the new user for the earlier one."""

    def __post_init__(self) -> None:
        if self.password is not None:
            check_password(self.password)


class PasswordParameters(Parameters):
    """The user and their new password."""

    user_id: Id
    password: str

    def __post_init__(self) -> None:
        check_password(self.password)


class DisabledParameters(Parameters):
    """The user, and whether to disable or enable them."""

    user_id: Id
    disabled: bool


class TokenParameters(Parameters):
    """The user, and the lifetime of the token in seconds."""

    user_id: Id
    ttl_seconds: int

    def __post_init__(self) -> None:
        if not 1 <= self.ttl_seconds <= MAX_TTL:
            raise ValueError(f"a token is valid for 1 to {MAX_TTL} seconds, not {self.ttl_seconds}")


class UserView(msgspec.Struct):
    """An account."""

    user_id: str
    role: str
    """`user`, `admin` or `service`."""
    disabled: bool
    has_password: bool
    created_at: int
    """Unix ms."""


class ListResult(msgspec.Struct):
    """One page, ordered by user id. `next` is empty on the last page."""

    users: list[UserView]
    next: str


class GetResult(msgspec.Struct):
    """A user and their memberships."""

    user: UserView
    groups: list[Membership]


class TokenResult(msgspec.Struct):
    """A signed access token."""

    token: str


class Accounts:
    """The handlers. `issue_token(account, seconds)` returns a signed token, valid for that many seconds."""

    def __init__(
        self,
        directory: Directory,
        new_accounts: NewAccounts,
        members: Members,
        now_ms: Callable[[], int],
        issue_token: Callable[[Account, float], str],
    ) -> None:
        self._directory = directory
        self._new_accounts = new_accounts
        self._members = members
        self._now_ms = now_ms
        self._issue_token = issue_token

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.users.add", self.add)
        operations.add("admin.users.set_password", self.set_password)
        operations.add("admin.users.list", self.list_users)
        operations.add("admin.users.get", self.get)
        operations.add("admin.users.set_disabled", self.set_disabled)
        operations.add("admin.users.remove", self.remove)
        operations.add("admin.tokens.issue", self.issue_token)
        operations.add("admin.tokens.revoke", self.revoke_tokens)

    async def add(self, caller: Caller, parameters: AddParameters) -> UserView:
        """Add an account. Refused (`exists`) if an account has the id, or one that differs in case only, and
        without `reuse_id` also if an account had it that was removed."""
        account = await self._new_accounts.add(
            parameters.user_id,
            parameters.password,
            parameters.role or "user",
            reuse_id=parameters.reuse_id,
        )
        return _view(account)

    async def set_password(self, caller: Caller, parameters: PasswordParameters) -> Done:
        """Replace a user's password."""
        await self._directory.set_password(parameters.user_id, parameters.password)
        return Done()

    async def list_users(self, caller: Caller, parameters: PageParameters) -> ListResult:
        """List all users."""
        limit = parameters.limit or PAGE
        accounts = await self._directory.accounts(parameters.after, limit + 1)
        page, following = page_of(accounts, limit, lambda account: account.user_id)
        return ListResult([_view(account) for account in page], following)

    async def get(self, caller: Caller, parameters: UserParameters) -> GetResult:
        """Get a user and their groups."""
        account = await need_account(self._directory, parameters.user_id)
        return GetResult(_view(account), await self._directory.memberships(parameters.user_id))

    async def set_disabled(self, caller: Caller, parameters: DisabledParameters) -> Done:
        """Disable or enable a user. A disabled user cannot connect; their data is kept."""
        await self._directory.set_disabled(parameters.user_id, parameters.disabled)
        return Done()

    async def remove(self, caller: Caller, parameters: UserParameters) -> Done:
        """Remove an account and its memberships. Its messages stay.

        Refused (`is_owner`) while the user owns a group: its members would expect neither that the group
        ends, nor that it gets another owner."""
        user_id = parameters.user_id
        await need_account(self._directory, user_id)
        memberships = await self._directory.memberships(user_id)
        groups = await self._directory.groups_by_id([member.group_id for member in memberships])
        owned = [
            member.group_id
            for member in memberships
            if member.role == "owner" and not groups[member.group_id].dismissed_at
        ]
        if owned:
            count = f"{len(owned)} {'group' if len(owned) == 1 else 'groups'}"
            more = f" and {len(owned) - _OWNED_SHOWN} more" if len(owned) > _OWNED_SHOWN else ""
            raise RefusedError(
                "is_owner",
                f"user {user_id} owns {count} ({', '.join(owned[:_OWNED_SHOWN])}{more}): "
                "dismiss or transfer first, or disable the user instead",
            )
        await self._members.remove_user(user_id)
        return Done()

    async def issue_token(self, caller: Caller, parameters: TokenParameters) -> TokenResult:
        """Issue an access token: until it expires, it can be used in place of the user's password."""
        account = await need_enabled_account(self._directory, parameters.user_id)
        return TokenResult(self._issue_token(account, float(parameters.ttl_seconds)))

    async def revoke_tokens(self, caller: Caller, parameters: UserParameters) -> Done:
        """Revoke all tokens of a user, and end the connections made with them."""
        account = await need_account(self._directory, parameters.user_id)
        before = next_revocation(account, self._now_ms() / 1000)
        await self._directory.revoke_tokens(parameters.user_id, before)
        return Done()


def _view(account: Account) -> UserView:
    return UserView(
        user_id=account.user_id,
        role=account.role,
        disabled=account.disabled,
        has_password=account.password_hash is not None,
        created_at=account.created_at,
    )

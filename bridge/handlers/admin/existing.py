"""Accounts and groups that must exist, and the pages of listings."""

from typing import Annotated

import msgspec

from broker.domain.errors import RefusedError
from broker.ports import Account, AccountDirectory, Group, GroupDirectory

PAGE = 100
"""How many a page has when `limit` is 0."""

PageLimit = Annotated[
    int, msgspec.Meta(ge=0, le=1000, description=f"how many a page has at most; 0 is {PAGE}")
]


async def need_account(directory: AccountDirectory, user_id: str) -> Account:
    """A user's account. Refused (`not_found`) if there is none."""
    account = await directory.account(user_id)
    if account is None:
        raise RefusedError("not_found", f"no user {user_id}")
    return account


async def need_enabled_account(directory: AccountDirectory, user_id: str) -> Account:
    """The account of a user who may connect. Refused: `not_found`, `disabled`."""
    account = await need_account(directory, user_id)
    if account.disabled:
        raise RefusedError("disabled", f"user {user_id} is disabled")
    return account


async def need_group(directory: GroupDirectory, group_id: str) -> Group:
    """A group, dismissed or not. Refused (`not_found`) if there is none."""
    group = await directory.group(group_id)
    if group is None:
        raise RefusedError("not_found", f"no group {group_id}")
    return group

"""Checks that accounts and groups exist, and the pages of administration lists."""

from typing import Annotated

import msgspec

from bridge.core.operations import After, Parameters
from broker.domain.errors import RefusedError
from broker.ports import Account, AccountDirectory, Group, GroupDirectory

PAGE = 100
"""The size of a page when `limit` is 0."""

PageLimit = Annotated[
    int, msgspec.Meta(ge=0, le=1000, description=f"The most items a page may have; 0 means {PAGE}.")
]


class PageParameters(Parameters):
    """Which page."""

    after: After = ""
    limit: PageLimit = 0


async def need_account(directory: AccountDirectory, user_id: str) -> Account:
    """A user's account. Refused (`not_found`) if there is none."""
    account = await directory.account(user_id)
    if account is None:
        raise RefusedError("not_found", f"no user {user_id}")
    return account


async def need_enabled_account(directory: AccountDirectory, user_id: str) -> Account:
    """The account of a user who may connect. Refused with `not_found` or `disabled`."""
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

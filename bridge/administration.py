"""Builds the administration operations of a node.

They are kept apart from the operations of `bridge.services`, so that no ordinary user can reach them.
"""

from collections.abc import Callable, Sequence

from bridge.core.accounts import NewAccounts
from bridge.core.operations import Handlers, Operations, operations_of
from bridge.core.verification import Verification
from bridge.handlers.admin.accounts import Accounts
from bridge.handlers.admin.away import AwaySessions
from bridge.handlers.admin.backups import Backups, BackupSource
from bridge.handlers.admin.connections import Connections
from bridge.handlers.admin.counters import Counters
from bridge.handlers.admin.groups import GroupAdministration
from bridge.handlers.admin.messages import MessageAdministration
from bridge.handlers.admin.verification import StoreChecks
from bridge.handlers.groups import Groups
from bridge.handlers.members import Members
from broker.ports import Account, BrokerPort, Directory, MessageLog, StateStore

HANDLERS: Sequence[type[Handlers]] = (
    Accounts,
    Connections,
    GroupAdministration,
    MessageAdministration,
    Counters,
    StoreChecks,
    Backups,
)


def administration(
    directory: Directory,
    log: MessageLog,
    states: StateStore,
    broker: BrokerPort,
    new_accounts: NewAccounts,
    groups: Groups,
    members: Members,
    now_ms: Callable[[], int],
    issue_token: Callable[[Account, float], str],
    verification: Verification | None = None,
    backups: BackupSource | None = None,
) -> Operations:
    """The administration operations, ready to be called.

    `issue_token(account, seconds)` returns a signed token of that account, valid for that many seconds.
    `verification` and `backups`: None if the store does not offer them."""
    operations = Operations()
    for handlers in (
        Accounts(directory, new_accounts, members, now_ms, issue_token),
        Connections(directory, broker, AwaySessions(directory, log, states)),
        GroupAdministration(directory, groups, members),
        MessageAdministration(directory, log, broker),
        Counters(broker),
        StoreChecks(verification),
        Backups(backups),
    ):
        handlers.register(operations)
    return operations


def admin_operations() -> Operations:
    """The same operations without their dependencies: for reading their types, not for calling."""
    return operations_of(HANDLERS)

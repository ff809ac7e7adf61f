"""Builds the services: all handlers of ordinary users' operations, and the MQTT RPC that calls them."""

from collections.abc import Callable, Sequence

from bridge.core.access import Access, MessageLimits
from bridge.core.bearer import TokenReader
from bridge.core.ends import Ends
from bridge.core.group_changes import GroupChanges
from bridge.core.notices import Notices
from bridge.core.operations import Handlers, Operations, operations_of
from bridge.core.quotas import Quotas
from bridge.handlers.amendments import Amendments
from bridge.handlers.contacts import Contacts
from bridge.handlers.conversations import Conversations
from bridge.handlers.groups import Groups
from bridge.handlers.members import Members
from bridge.handlers.messages import Messages
from bridge.handlers.presence import Presences
from bridge.handlers.pushes import Pushes
from bridge.handlers.read_counts import ReadCounts
from bridge.handlers.receipts import Receipts
from bridge.handlers.sending import Sending
from bridge.handlers.sessions import Sessions
from bridge.handlers.users import Users
from bridge.mqtt_api.rpc import RpcServer
from broker.ports import (
    Arrival,
    BrokerPort,
    Clock,
    ConversationStore,
    Directory,
    MessageLog,
    PresenceChange,
    SaveChanges,
    StateStore,
)

HANDLERS: Sequence[type[Handlers]] = (
    Messages,
    Sending,
    Receipts,
    ReadCounts,
    Amendments,
    Conversations,
    Contacts,
    Groups,
    Members,
    Presences,
    Users,
    Sessions,
    Pushes,
)


class Services:
    """Implements `broker.ports.ServicesPort`.

    `save` commits changes to the state store. `most_members` is the largest size of a group. `tokens`
    reads tokens; None if the node has none.
    """

    def __init__(
        self,
        log: MessageLog,
        states: StateStore,
        save: SaveChanges,
        conversations: ConversationStore,
        directory: Directory,
        broker: BrokerPort,
        clock: Clock,
        limits: MessageLimits,
        most_members: int,
        quotas: Quotas,
        withheld: Callable[[int], None],
        generation: int,
        tokens: TokenReader | None = None,
    ) -> None:
        self._access = access = Access(directory, conversations, clock, limits, Ends(generation))
        self.notices = Notices(directory, broker)
        self._group_changes = changes = GroupChanges(directory, broker, self.notices, most_members)
        self.groups = Groups(directory, access, log, changes, quotas.groups)
        self.members = Members(directory, access, log, changes, quotas)
        self._receipts = Receipts(log, conversations, directory, access, broker, save)
        self._presences = Presences(directory, states, save, broker)
        self.operations = Operations()
        for handlers in (
            Messages(log, directory, access, withheld),
            Sending(access, broker),
            self._receipts,
            ReadCounts(log, conversations, directory, access),
            Amendments(log, access, broker),
            Conversations(log, conversations, directory, access, broker, save),
            Contacts(directory, access, broker, self.notices, quotas),
            self.groups,
            self.members,
            self._presences,
            Users(directory, access, broker),
            Sessions(tokens, broker),
            Pushes(broker),
        ):
            handlers.register(self.operations)
        self._quotas = quotas
        self._rpc = RpcServer(self.operations)

    def reload(
        self,
        limits: MessageLimits,
        most_members: int,
        groups: int,
        contact_requests: int,
        joins: int,
        repeats: int,
    ) -> None:
        """Change the limits. The last four are those of `Quotas.allow`."""
        self._quotas.allow(groups, contact_requests, joins, repeats)
        self._access.reload(limits)
        self._group_changes.reload(most_members)

    async def call(self, user: str, method: str, payload: bytes, client_id: str = "") -> bytes:
        """See `ServicesPort`."""
        return await self._rpc.call(user, method, payload, client_id)

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        """See `ServicesPort`."""
        await self._receipts.arrived(batch)

    async def presence_changed(self, batch: Sequence[PresenceChange]) -> None:
        """See `ServicesPort`."""
        await self._presences.changed(batch)

    async def close(self) -> None:
        """Stop the background task. Notices that are still pending are published at the next start."""
        await self.notices.close()


def offered_operations() -> Operations:
    """The operations a node offers to all users, without their dependencies: for reading their types,
    not for calling."""
    return operations_of(HANDLERS)

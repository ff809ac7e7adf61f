"""The services of a node, put together."""

from collections.abc import Sequence

from bridge.control import NodeControl
from bridge.core.access import Access, Limits
from bridge.core.group_changes import GroupChanges
from bridge.core.notices import Notices
from bridge.core.operations import Handlers, Operations, operations_of
from bridge.handlers.amendments import Amendments
from bridge.handlers.contacts import Contacts
from bridge.handlers.conversations import Conversations
from bridge.handlers.groups import Groups
from bridge.handlers.members import Members
from bridge.handlers.messages import Messages
from bridge.handlers.presence import Presences
from bridge.handlers.receipts import Receipts
from bridge.handlers.sending import Sending
from bridge.handlers.users import Users
from bridge.local import LocalBridge
from bridge.mqtt_api.rpc import RpcServer
from broker.domain.errors import Refusal
from broker.domain.message import Content
from broker.domain.topics import Topic
from broker.ports import Arrival, ConversationStore, Directory, MessageLog, StateStore
from broker.publish.references import References

HANDLERS: Sequence[type[Handlers]] = (
    Messages,
    Sending,
    Receipts,
    Amendments,
    Conversations,
    Contacts,
    Groups,
    Members,
    Presences,
    Users,
)


class Services:
    """See `broker.node.Services`. `most_members`: of a group."""

    def __init__(
        self,
        log: MessageLog,
        states: StateStore,
        conversations: ConversationStore,
        directory: Directory,
        control: NodeControl,
        bridge: LocalBridge,
        limits: Limits,
        most_members: int,
    ) -> None:
        access = Access(directory, control.now_ms, limits)
        self.notices = Notices(directory, control)
        changes = GroupChanges(directory, control, self.notices)
        self.groups = Groups(directory, access, control, changes, most_members)
        self.members = Members(directory, access, control, changes, most_members)
        self._bridge = bridge
        self._references = References(log, directory)
        self._receipts = Receipts(log, conversations, directory, access, control)
        self._presences = Presences(directory, states, control)
        self.operations = Operations()
        for handlers in (
            Messages(log, directory, access),
            Sending(access, control),
            self._receipts,
            Amendments(log, access, control),
            Conversations(log, conversations, directory, access, control),
            Contacts(directory, access, control, self.notices),
            self.groups,
            self.members,
            self._presences,
            Users(directory, access, control),
        ):
            handlers.register(self.operations)
        RpcServer(bridge, self.operations)

    def call(self, topic: Topic, payload: bytes) -> Refusal | None:
        """See `broker.node.Services`."""
        return self._bridge.call(topic, payload)

    async def check(self, user: str, topic: Topic, content: Content) -> Refusal | None:
        """See `broker.node.Services`."""
        return await self._references.check(user, topic, content)

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        """See `broker.node.Services`."""
        await self._receipts.arrived(batch)

    async def presence_changed(self, batch: Sequence[tuple[str, bytes]]) -> None:
        """See `broker.node.Services`."""
        await self._presences.changed(batch)

    async def close(self) -> None:
        """Stop what runs by itself."""
        await self._bridge.close()
        await self.notices.close()


def offered_operations() -> Operations:
    """The operations a node offers to everybody, to be read and not called."""
    return operations_of(HANDLERS)

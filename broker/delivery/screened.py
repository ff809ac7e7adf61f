"""A subscriber whose every delivery must be allowed by plugins, which are asked topic by topic."""

from collections.abc import Awaitable, Callable, Mapping

from broker.ports import SessionKey
from broker.session.session import Session
from broker.session.tail import Tail
from broker.tasks import Tasks
from broker.wire.encoder import Outgoing


class Screened:
    """Takes a session's place in the routing tables if plugins other than the platform's decide about
    topics. amqtt asks such plugins before each delivery; here answers are cached until `forget`.
    """

    __slots__ = ("_ask", "_asking", "_known", "_tasks", "session")

    def __init__(self, session: Session, ask: Callable[[str], Awaitable[bool]]) -> None:
        self.session = session
        self._ask = ask
        self._known: dict[str, bool] = {}
        self._tasks = Tasks()
        self._asking: dict[str, list[tuple[Outgoing, int]]] = {}

    @property
    def key(self) -> SessionKey:
        """The session's."""
        return self.session.key

    @property
    def tails(self) -> Mapping[str, Tail]:
        """The session's."""
        return self.session.tails

    def offer(self, outgoing: Outgoing, qos: int) -> None:
        """Deliver if the topic may be received. While plugins are asked, messages wait in their order."""
        topic = outgoing.publication.topic
        if topic in self._asking:
            self._asking[topic].append((outgoing, qos))
        elif (known := self._known.get(topic)) is None:
            self._asking[topic] = [(outgoing, qos)]
            self._tasks.spawn(self._decide(topic))
        elif known:
            self.session.offer(outgoing, qos)

    def offer_entry(self, topic: str, offset: int, outgoing: Outgoing) -> None:
        """Deliver an entry of a log. The plugins were asked when the topic was granted."""
        self.session.offer_entry(topic, offset, outgoing)

    async def _decide(self, topic: str) -> None:
        allowed = False
        try:
            allowed = await self._ask(topic)
            self._known[topic] = allowed
        finally:
            waiting = self._asking.pop(topic)
        for outgoing, qos in waiting:
            if allowed and self.session.connected:
                self.session.offer(outgoing, qos)

    def forget(self) -> None:
        """Clear the cache: plugins are asked again."""
        self._known.clear()

"""Loads the state of a session for a connection. In a cluster it claims the session."""

from collections.abc import Awaitable, Callable

import msgspec
from msgspec.structs import replace

from broker.delivery.away import AwaySessions
from broker.delivery.online import Online
from broker.domain.errors import RefusedError
from broker.metrics import Metrics
from broker.ports import Forgotten, Principal, SessionKey, SessionState
from broker.registry.roles import Arriving, Client, Elsewhere, RegistryClock, RegistryLimits
from broker.states import States

MayReceive = Callable[[Principal, str], Awaitable[bool]]


class Loaded(msgspec.Struct, frozen=True):
    """A session as it was stored. `state` is None if there was none, `epoch` without other nodes."""

    state: SessionState | None = None
    epoch: int | None = None


class Loader:
    """See `Registry` for the parameters."""

    def __init__(
        self,
        online: Online[Client],
        away: AwaySessions,
        states: States,
        metrics: Metrics,
        limits: RegistryLimits,
        clock: RegistryClock,
        may_receive: MayReceive | None,
    ) -> None:
        self._online = online
        self._away = away
        self._states = states
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._may_receive = may_receive

    def check_connections(self, user: str, devices: int | None) -> None:
        """Check that a user may have one more connection, of which `devices` counts those on all nodes, the
        new one included. Raises `RefusedError`."""
        most = self._limits.connections_per_user
        here = len(self._online.of(user)) if user else 0
        if user and (here >= most or (devices or 0) > most):
            raise self._too_many("connections_per_user")

    async def load(self, key: SessionKey, client: Client, clean: bool) -> Loaded:
        """The stored state of a session for a client; none for a `clean` one, which replaces it. Raises
        `StoreError` and `RefusedError`."""
        if clean:
            return Loaded()
        state = await self._states.load(key)
        if state is None and key.user:
            await self._check_sessions(key)
        return Loaded(await self._screened(state, client))

    async def claim(self, key: SessionKey, client: Client, clean: bool, elsewhere: Elsewhere) -> Loaded:
        """As `load`, in a cluster."""
        if clean:
            # Not later, as on a single node: the next connection may be to another one.
            await self._states.save([Forgotten(key.user, key.client_id)])
            return Loaded()
        claimed = await self._states.claim(key, self._clock.steady_ms())
        elsewhere.claimed(key, claimed)
        if claimed.state is None and key.user:
            try:
                await self._check_sessions(key)
            except RefusedError:
                self._states.submit([Forgotten(key.user, key.client_id)])
                raise
        return Loaded(await self._screened(claimed.state, client), claimed.epoch)

    async def _check_sessions(self, key: SessionKey) -> None:
        """A new persistent session is about to begin: check that its user may have one more."""
        most = self._limits.sessions_per_user
        # Those that are connected are perhaps not stored yet; some of them may go while the store is asked.
        client_ids = self._persistent_of(key.user)
        client_ids |= set(await self._states.store.client_ids(key.user, most + 1))
        client_ids |= self._persistent_of(key.user)
        if len(client_ids - {key.client_id}) >= most:
            raise self._too_many("sessions_per_user")

    def _persistent_of(self, user: str) -> set[str]:
        """The client ids of the persistent sessions of a user that are connected."""
        return {
            key.client_id
            for key, client in self._online.of(user).items()
            if client.session is not None and client.session.persistent
        }

    def _too_many(self, limit: str) -> RefusedError:
        self._metrics.limited[limit] += 1
        return RefusedError("quota", f"too many for one user (limits.{limit})")

    async def _screened(self, state: SessionState | None, client: Client) -> SessionState | None:
        """The state without the queued messages that plugins do not let the client receive."""
        may_receive, principal = self._may_receive, client.publisher.principal
        if state is None or may_receive is None:
            return state
        # A released message was delivered already: only its PUBREL handshake is left.
        queue = [
            message
            for message in state.queue
            if message.released or await may_receive(principal, message.topic)
        ]
        return replace(state, queue=queue)


def is_superseded(arriving: Arriving | None) -> bool:
    """Whether a newer connection of the session has come to another node."""
    return arriving is not None and arriving.is_superseded

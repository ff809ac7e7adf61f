"""Asks the plugins: who a client is, what it may publish, subscribe to and receive.

Authenticators check credentials. The platform's own topic plugin has `rules`, which know users and work out
grants. All other topic plugins are filters: they answer yes or no for one topic.
"""

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session
from msgspec.structs import replace

from broker.amqtt_edge.context import PluginSession
from broker.domain.attempts import TooManyAttemptsError
from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.domain.topics import Topic
from broker.ports import IDENTITY_ATTRIBUTE, Credentials, Grant, Identity, Principal, TopicRules

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PLUGIN_SECONDS = 8.0
"""A plugin that takes longer to decide has said no. Less than the default `connect_timeout`, so that a client
gets an answer before its connection is closed."""

_UNDECIDED = (StoreError, TooManyAttemptsError)


class AmqttGate:
    """See `ports.Gate`: the decision of all plugins together."""

    def __init__(self, plugins: Sequence[BasePlugin[Any]]) -> None:
        self._authenticators = [p for p in plugins if isinstance(p, BaseAuthPlugin)]
        topic_plugins = [p for p in plugins if isinstance(p, BaseTopicPlugin)]
        self._rules = [cast("TopicRules", p.rules) for p in topic_plugins if hasattr(p, "rules")]
        self._filters = [p for p in topic_plugins if not hasattr(p, "rules")]

    @property
    def screens(self) -> bool:
        """Whether there are filters, which have to be asked about every topic that is delivered."""
        return bool(self._filters)

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """See `ports.Gate`. As in amqtt: at least one plugin must say yes, and none may say no."""
        session = PluginSession(credentials)
        accepted = refused = False
        for plugin in self._authenticators:
            answer = await self._decide(plugin, plugin.authenticate(session=session), raising=_UNDECIDED)
            if answer is not None:
                accepted = True
                refused = refused or not answer
        if refused or not accepted:
            return None
        identity = session.attributes.get(IDENTITY_ATTRIBUTE) or Identity(session.username or "")
        peer = (credentials.remote_address, credentials.remote_port)
        return Principal(identity, session, credentials.client_id, peer)

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        """See `ports.Gate`."""
        refusal = await self.user_may_publish(principal.identity, topic)
        if refusal is not None:
            return refusal
        if await self._allowed(principal, topic.name, Action.PUBLISH):
            return None
        return Refusal("not_authorized", ReasonCode.NOT_AUTHORIZED, f"not allowed to publish to {topic.name}")

    async def user_may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """See `ports.Gate`."""
        try:
            for rules in self._rules:
                refusal = await _in_time(rules.may_publish(identity, topic))
                if refusal is not None:
                    return refusal
        except Exception as error:
            logger.error("topic rules failed, refusing: %r", error)
            return Refusal("unavailable", ReasonCode.NOT_AUTHORIZED, "the directory does not answer")
        return None

    async def grant(self, principal: Principal, topic_filter: str) -> Grant | None:
        """See `ports.Gate`."""
        grant: Grant | None = Grant({}, open=True, everything=True)
        try:
            for rules in self._rules:
                grant = await _in_time(rules.grant(principal.identity, topic_filter))
                if grant is None:
                    return None
        except Exception as error:
            raise StoreError(f"topic rules failed: {error!r}") from error
        if grant is None or not await self._allowed(principal, topic_filter, Action.SUBSCRIBE):
            return None
        if self._filters:
            topics = {t: n for t, n in grant.topics.items() if await self.may_receive(principal, t)}
            grant = replace(grant, topics=topics)
        return grant

    async def may_receive(self, principal: Principal, topic: str) -> bool:
        """See `ports.Gate`."""
        return await self._allowed(principal, topic, Action.RECEIVE)

    async def _allowed(self, principal: Principal, topic: str, action: Action) -> bool:
        session = cast("Session", principal.plugin_session)
        for plugin in self._filters:
            asked = plugin.topic_filtering(session=session, topic=topic, action=action)
            if not await self._decide(plugin, asked):
                return False
        return True

    async def _decide(
        self,
        plugin: BasePlugin[Any],
        asked: Coroutine[Any, Any, bool | None],
        raising: tuple[type[Exception], ...] = (),
    ) -> bool | None:
        """A plugin's answer; no if it fails, except that errors of the types `raising` are raised."""
        try:
            return await _in_time(asked)
        except raising:
            raise  # this is not a no: the client is told to try again later
        except Exception as error:
            logger.error("plugin %s failed, refusing: %r", type(plugin).__name__, error)
            return False


async def _in_time(asked: Coroutine[Any, Any, T]) -> T:
    """The answer of a plugin.

    Most answers come without waiting. So the coroutine is started first, and gets a timer only if it waits.

    Raises:
        TimeoutError: there is no answer after `_PLUGIN_SECONDS`.
    """
    try:
        waiting = asked.send(None)
    except StopIteration as answer:
        return cast("T", answer.value)
    async with asyncio.timeout(_PLUGIN_SECONDS):
        return await _rest(asked, waiting)


@types.coroutine
def _rest(started: Coroutine[Any, Any, T], waiting: object) -> Generator[object, Any, T]:
    """Drive a coroutine that has been started to its end. `waiting` is what it has yielded (PEP 342)."""
    while True:
        try:
            sent = yield waiting
        except BaseException as error:
            step = partial(started.throw, error)
        else:
            step = partial(started.send, sent)
        try:
            waiting = step()
        except StopIteration as answer:
            return cast("T", answer.value)

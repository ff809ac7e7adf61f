"""The platform's authentication and topic rules as amqtt plugins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from broker.domain.ids import is_id
from broker.domain.topics import is_valid_filter, parse_topic
from broker.ports import IDENTITY_ATTRIBUTE, Identity, PluginServices
from plugins.auth.authenticator import Authenticator
from plugins.auth.passwords import Passwords
from plugins.auth.rules import ContractRules
from plugins.auth.tokens import Tokens, looks_like_token


class HostContext(Protocol):
    """amqtt's plugin context with the node's addition."""

    services: PluginServices


def _services(context: BaseContext) -> PluginServices:
    return cast("HostContext", context).services


class UserAuthPlugin(BaseAuthPlugin):
    """Authenticates by user name and password, or user name and token, against the directory."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        services = _services(context)
        key_file = self.config.token_keys or services.data_dir / "token_keys.json"
        self.authenticator = Authenticator(
            services.directory,
            cast("Passwords", services.passwords),
            Tokens(Path(key_file)),
            services.attempts,
        )

    async def authenticate(self, *, session: Session) -> bool | None:
        """True for a known, enabled user with the right password or an access token.

        Raises `TooManyAttemptsError` and `StoreError`, see `Authenticator`."""
        user = session.username
        if user is None:
            session.is_anonymous = self.config.allow_anonymous
            return bool(self.config.allow_anonymous)
        password = (session.password or "").encode(errors="surrogateescape")
        if not is_id(user) or not password:
            return False
        identity = await self._identify(user, password, session.remote_address or "")
        if identity is None:
            return False
        session.attributes[IDENTITY_ATTRIBUTE] = identity
        return True

    async def _identify(self, user: str, password: bytes, address: str) -> Identity | None:
        if not looks_like_token(password):
            account = await self.authenticator.by_password(user, password, address)
            return None if account is None else Identity(user, account.role)
        bearer = await self.authenticator.by_token(password.decode(errors="replace"))
        if bearer is None or bearer.revoked or bearer.account.user_id != user:
            return None
        token = bearer.token
        return Identity(user, bearer.account.role, token.expires_at, token.id, token.issued_at)

    @dataclass
    class Config:
        """Options in config/broker.yaml."""

        allow_anonymous: bool = False
        """Accept clients without a user name. They may use open topics only."""
        token_keys: str | None = None
        """The file of token signing keys. If not set: token_keys.json in the data directory."""


class TopicRulesPlugin(BaseTopicPlugin):
    """The topic table of docs/topics.md as a plugin.

    The broker asks `rules`, because it needs reasons and offsets. Other callers get the same decision
    as yes or no from amqtt's `topic_filtering`."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        services = _services(context)
        self.rules = ContractRules(services.directory, services.open_filters, services.now_ms)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        """Whether the action is allowed."""
        if session is None or not topic or not is_valid_filter(topic):
            return False
        identity = session.attributes.get(IDENTITY_ATTRIBUTE) or Identity(session.username or "")
        if action is Action.PUBLISH:
            return await self.rules.may_publish(identity, parse_topic(topic)) is None
        grant = await self.rules.grant(identity, topic)
        if action is Action.SUBSCRIBE:
            return grant is not None
        return grant is not None and (grant.everything or grant.open or topic in grant.topics)

"""What the APIs and the handlers need to know about a token and its account."""

from typing import Protocol

from broker.domain.directory import Account


class Token(Protocol):
    """A valid token. Times are Unix seconds. `id` is "" if the token has none; such a
    token cannot be revoked by itself."""

    @property
    def id(self) -> str: ...

    @property
    def expires_at(self) -> float: ...

    @property
    def issued_at(self) -> float: ...


class Bearer(Protocol):
    """A token with a valid signature, and its account. One that is `revoked` must not be accepted."""

    @property
    def token(self) -> Token: ...

    @property
    def account(self) -> Account: ...

    @property
    def revoked(self) -> bool: ...


class TokenReader(Protocol):
    """Reads tokens of accounts."""

    async def by_token(self, text: str) -> Bearer | None:
        """A token and its account. None if the token is not valid, or its user is disabled or removed.
        Raises `StoreError`."""
        ...

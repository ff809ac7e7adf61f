"""What the ways in need to know of a token and whose it is."""

from typing import Protocol

from broker.domain.directory import Account


class Token(Protocol):
    """A valid token; it ends at `expires_at` (Unix seconds)."""

    @property
    def id(self) -> str: ...

    @property
    def expires_at(self) -> float: ...


class Bearer(Protocol):
    """A valid token and whose it is; `revoked` ones must not be accepted."""

    @property
    def token(self) -> Token: ...

    @property
    def account(self) -> Account: ...

    @property
    def revoked(self) -> bool: ...

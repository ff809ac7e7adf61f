"""Who somebody is, by password or token: one answer for all ways to come in."""

import msgspec

from broker.ports import Account, AccountDirectory
from plugins.auth.passwords import Passwords
from plugins.auth.tokens import Kind, Token, Tokens


class Bearer(msgspec.Struct, frozen=True):
    """A valid token, and the account it was issued to. `revoked`: it must not be accepted."""

    token: Token
    account: Account
    revoked: bool


class Authenticator:
    """Passwords and tokens against the directory. Methods raise `StoreError` when that cannot be
    told now."""

    def __init__(self, directory: AccountDirectory, passwords: Passwords, tokens: Tokens) -> None:
        self._directory = directory
        self._passwords = passwords
        self.issue = tokens.issue
        self._tokens = tokens

    async def by_password(self, user: str, password: bytes) -> Account | None:
        """The account, if it is enabled and this is its password. Takes as long for no account, and
        for one without a password."""
        account = await self._directory.account(user)
        hashed = account.password_hash if account else None
        right = await self._passwords.verify(password, hashed, user)
        return account if right and account is not None and not account.disabled else None

    async def by_token(self, text: str, kind: Kind = "access") -> Bearer | None:
        """What a token stands for, or None if it is not valid, not of this kind, or its user is
        disabled or not the one it was issued to."""
        token = self._tokens.verify(text, kind)
        account = await self._directory.account(token.user) if token is not None else None
        if token is None or account is None or account.disabled or not _is_for(token, account):
            return None
        revoked = bool(token.id) and await self._directory.is_revoked(token.id)
        return Bearer(token, account, revoked)


def _is_for(token: Token, account: Account) -> bool:
    """Whether a token was issued to this account, not to one that had the id before, and not before
    all its tokens were revoked. Tokens of before there were ids know whole seconds."""
    created_at = account.created_at / 1000 if token.id else account.created_at // 1000
    return token.issued_at >= max(created_at, account.tokens_after)

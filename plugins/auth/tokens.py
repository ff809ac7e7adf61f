"""Signed tokens in place of a password: JWT (RFC 7519), HS256, with key rotation by `kid`.

The key file is JSON: `{"active": KID, "keys": {KID: SECRET}}`. New tokens are signed with the active
key. Tokens signed with any listed key are accepted. To rotate: add a key and make it active. Remove
the old key when its last token has expired. The file is read again whenever it changes.

The claim `typ` separates the two kinds: an `access` token replaces a password, a `refresh` token only
buys new tokens. The claim `jti` is the token's id, by which it is revoked. Tokens of earlier versions
have neither claim: they count as access tokens without an id.

The claim `acc` ties a token to its account as it was then: when it was made, and its last "revoke all". So
no comparison of times decides whom a token belongs to, and a token is valid at once, also if the wall clock
is set back. In tokens without it, the time `iat` decides.
"""

import os
import secrets
from pathlib import Path
from typing import Literal

import jwt
import msgspec

from broker.domain.errors import StoreError
from broker.ports import Account

_ALGORITHM = "HS256"
_MIN_SECRET = 32

Kind = Literal["access", "refresh"]


class TokenKeyError(StoreError):
    """The key file cannot be used; the text says why. No token can be verified until it is repaired."""


class Keys(msgspec.Struct, frozen=True):
    """The key file."""

    active: str
    keys: dict[str, str]


class Token(msgspec.Struct, frozen=True):
    """The claims of a valid token. Times are Unix seconds. `id` is "" for a token without an id.

    `account` is the `created_at` of the account it was issued to, and `issued_at` then its `tokens_after`;
    None if the token does not say so."""

    user: str
    expires_at: float
    issued_at: float
    id: str = ""
    account: int | None = None


class Tokens:
    """Issues and verifies tokens with the keys of a file. A missing file is created.

    Raises:
        TokenKeyError: the file is not readable or not valid. All methods raise it, too.
    """

    def __init__(self, key_file: Path) -> None:
        self.file = key_file
        if not key_file.exists():
            _create(key_file)
        self._stamp = self._stat()
        self._keys = self._read()
        self._reported = self._keys

    def reload(self) -> list[str]:
        """Read the file now. Returns what has changed since the last call, in words without secrets."""
        before, now = self._reported, self._current()
        self._reported = now
        changes = [f"key {kid!r} is new" for kid in now.keys.keys() - before.keys.keys()]
        changes += [f"key {kid!r} is gone" for kid in before.keys.keys() - now.keys.keys()]
        both = before.keys.keys() & now.keys.keys()
        changes += [f"key {kid!r} is another one" for kid in both if before.keys[kid] != now.keys[kid]]
        if before.active != now.active:
            changes.append(f"the active key is {now.active!r}")
        return sorted(changes)

    def issue(
        self, user: str, ttl: float, now: float, kind: Kind = "access", account: Account | None = None
    ) -> str:
        """A token for `user` that ends at `now + ttl` (Unix seconds). With `account`, it is for this account
        until its tokens are revoked."""
        keys = self._current()
        claims: dict[str, object] = {
            "sub": user,
            "iat": now,  # with fractions: within one second the id may pass to another account
            "exp": int(now + ttl),
            "jti": secrets.token_urlsafe(12),
            "typ": kind,
        }
        if account is not None:
            claims["acc"] = [account.created_at, account.tokens_after]
        return jwt.encode(claims, keys.keys[keys.active], _ALGORITHM, headers={"kid": keys.active})

    def verify(self, token: str, kind: Kind = "access") -> Token | None:
        """The token's claims. None if it is not valid, has expired, is not of this kind, or was signed
        with a key that is not listed."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            secret = self._current().keys.get(kid) if isinstance(kid, str) else None
            if secret is None:
                return None
            # `iat` may lie in the future: the wall clock may have been set back.
            claims = jwt.decode(
                token, secret, [_ALGORITHM], options={"require": ["sub", "iat", "exp"], "verify_iat": False}
            )
        except jwt.InvalidTokenError:
            return None
        if claims.get("typ", "access") != kind:
            return None
        account = None
        try:
            issued_at = msgspec.convert(claims["iat"], float)
            if "acc" in claims:
                account, tokens_after = msgspec.convert(claims["acc"], tuple[int, int])
                issued_at = float(max(1, tokens_after))  # 0 is for no token: see `ports.Identity`
        except msgspec.ValidationError:
            return None
        return Token(claims["sub"], float(claims["exp"]), issued_at, claims.get("jti", ""), account)

    def _current(self) -> Keys:
        stamp = self._stat()
        if stamp != self._stamp:
            self._keys = self._read()
            self._stamp = stamp
        return self._keys

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = self.file.stat()
        except OSError as error:
            raise TokenKeyError(f"{self.file}: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Keys:
        try:
            keys = msgspec.json.decode(self.file.read_bytes(), type=Keys)
        except OSError as error:
            raise TokenKeyError(f"{self.file}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise TokenKeyError(f"{self.file}: {error}") from error
        if keys.active not in keys.keys:
            raise TokenKeyError(f"{self.file}: the active key {keys.active!r} is not among the keys")
        for kid, secret in keys.keys.items():
            if len(secret) < _MIN_SECRET:
                raise TokenKeyError(f"{self.file}: key {kid!r} has fewer than {_MIN_SECRET} characters")
        return keys


def looks_like_token(password: bytes) -> bool:
    """Whether a password is meant as a token: three parts, the first a JSON object in base64.

    Any other password is checked as a password. One that merely looks like a token is refused."""
    return password.startswith(b"eyJ") and password.count(b".") == 2


def _create(key_file: Path) -> None:
    keys = Keys("k1", {"k1": secrets.token_urlsafe(48)})
    # Written aside and renamed, so the file is complete or absent: a node killed here can start again.
    # The process id is in the name because nodes that share the file may create it at the same time.
    temporary = key_file.with_name(f"{key_file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(keys))
        temporary.replace(key_file)
    except OSError as error:
        raise TokenKeyError(f"{key_file}: {error.strerror}") from error

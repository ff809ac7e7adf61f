"""Signed tokens that stand for a password: JWT, HS256, with key rotation by `kid` (RFC 7519).

The keys are a JSON file: `{"active": KID, "keys": {KID: SECRET}}`. New tokens are signed with the
active key, tokens of every key listed are accepted. To rotate, add a key and make it the active
one; when the last token of the old key has expired, take the old key out. The file is read again
whenever it changes.

`typ` says what a token is for: `access` stands for a password, `refresh` only gets new tokens; so
that neither is taken for the other. `jti` names it, so that it can be revoked. Tokens of before there
were either are access tokens without a name.
"""

import os
import secrets
from pathlib import Path
from typing import Literal

import jwt
import msgspec

from broker.domain.errors import StoreError

_ALGORITHM = "HS256"
_MIN_SECRET = 32

Kind = Literal["access", "refresh"]


class TokenKeyError(StoreError):
    """The key file cannot be used; the text says why. While that is so, nobody can tell what a token is
    worth."""


class Keys(msgspec.Struct, frozen=True):
    """The key file."""

    active: str
    keys: dict[str, str]


class Token(msgspec.Struct, frozen=True):
    """What a valid token says: the user, and the Unix seconds at which it was issued and ends.
    `id` is "" if it has none."""

    user: str
    expires_at: float
    issued_at: float
    id: str = ""


class Tokens:
    """Issues and verifies tokens with the keys of a file, which is made if it is not there.

    Raises:
        TokenKeyError: the file is not readable or not valid.
    """

    def __init__(self, key_file: Path) -> None:
        self._file = key_file
        if not key_file.exists():
            _create(key_file)
        self._stamp = self._stat()
        self._keys = self._read()

    def issue(self, user: str, ttl: float, now: float, kind: Kind = "access") -> str:
        """A token for `user` that ends at `now + ttl` (Unix seconds)."""
        keys = self._current()
        claims = {
            "sub": user,
            "iat": now,  # not whole seconds: the user may be removed and another get the id within one
            "exp": int(now + ttl),
            "jti": secrets.token_urlsafe(12),
            "typ": kind,
        }
        return jwt.encode(claims, keys.keys[keys.active], _ALGORITHM, headers={"kid": keys.active})

    def verify(self, token: str, kind: Kind = "access") -> Token | None:
        """What a token says, or None if it is not valid, not of this kind, has ended, or its key was
        taken out."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            secret = self._current().keys.get(kid) if isinstance(kid, str) else None
            if secret is None:
                return None
            claims = jwt.decode(token, secret, [_ALGORITHM], options={"require": ["sub", "iat", "exp"]})
        except jwt.InvalidTokenError:
            return None
        if claims.get("typ", "access") != kind:
            return None
        return Token(claims["sub"], float(claims["exp"]), float(claims["iat"]), claims.get("jti", ""))

    def _current(self) -> Keys:
        stamp = self._stat()
        if stamp != self._stamp:
            self._keys = self._read()
            self._stamp = stamp
        return self._keys

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = self._file.stat()
        except OSError as error:
            raise TokenKeyError(f"{self._file}: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Keys:
        try:
            keys = msgspec.json.decode(self._file.read_bytes(), type=Keys)
        except OSError as error:
            raise TokenKeyError(f"{self._file}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise TokenKeyError(f"{self._file}: {error}") from error
        if keys.active not in keys.keys:
            raise TokenKeyError(f"{self._file}: the active key {keys.active!r} is not among the keys")
        for kid, secret in keys.keys.items():
            if len(secret) < _MIN_SECRET:
                raise TokenKeyError(f"{self._file}: key {kid!r} has fewer than {_MIN_SECRET} characters")
        return keys


def looks_like_token(password: bytes) -> bool:
    """Whether a password is meant as a token: three parts, the first a JSON object in base64."""
    return password.startswith(b"eyJ") and password.count(b".") == 2


def _create(key_file: Path) -> None:
    keys = Keys("k1", {"k1": secrets.token_urlsafe(48)})
    # All of it or nothing: a node that was killed here could not start again. The keys may be shared, so
    # other nodes may be at it, too.
    temporary = key_file.with_name(f"{key_file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(keys))
        temporary.replace(key_file)
    except OSError as error:
        raise TokenKeyError(f"{key_file}: {error.strerror}") from error

"""Signed tokens that stand for a password: JWT, HS256, with key rotation by `kid` (RFC 7519).

The keys are a JSON file: `{"active": KID, "keys": {KID: SECRET}}`. New tokens are signed with the
active key, tokens of every key listed are accepted. To rotate, add a key and make it the active
one; when the last token of the old key has expired, take the old key out. The file is read again
whenever it changes.
"""

import os
import secrets
from pathlib import Path

import jwt
import msgspec

_ALGORITHM = "HS256"
_MIN_SECRET = 32


class TokenKeyError(Exception):
    """The key file cannot be used; the text says why."""


class Keys(msgspec.Struct, frozen=True):
    """The key file."""

    active: str
    keys: dict[str, str]


class Token(msgspec.Struct, frozen=True):
    """What a valid token says: the user, and the Unix seconds at which it was issued and ends."""

    user: str
    expires_at: float
    issued_at: float


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

    def issue(self, user: str, ttl: float, now: float) -> str:
        """A token for `user` that ends at `now + ttl` (Unix seconds)."""
        keys = self._current()
        claims = {"sub": user, "iat": int(now), "exp": int(now + ttl)}
        return jwt.encode(claims, keys.keys[keys.active], _ALGORITHM, headers={"kid": keys.active})

    def verify(self, token: str) -> Token | None:
        """What a token says, or None if it is not valid, has ended, or its key was taken out."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            secret = self._current().keys.get(kid) if isinstance(kid, str) else None
            if secret is None:
                return None
            claims = jwt.decode(token, secret, [_ALGORITHM], options={"require": ["sub", "iat", "exp"]})
        except jwt.InvalidTokenError:
            return None
        return Token(claims["sub"], float(claims["exp"]), float(claims["iat"]))

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
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(keys))
    except OSError as error:
        raise TokenKeyError(f"{key_file}: {error.strerror}") from error

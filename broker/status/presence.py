"""Presence: a retained message per user, kept true by the server and stamped by it.

The server says `online` with a user's first device and `offline` some seconds after the last: who
is back by then was never away. In between a client may say `away`, `busy` or `online` for its user.
A client's `offline`, usually its last will, speaks for that device alone: while others are
connected the user stays online.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from broker.domain.errors import ReasonCode, Refusal
from broker.domain.presence import STATUSES, PresenceDocument


class _Claim(msgspec.Struct):
    status: str


_decode = msgspec.json.Decoder(_Claim).decode


class Timer(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Have it not happen."""
        ...


class Presence:
    """`publish(user, document, live)` retains; `later(callback)` calls when a user who has not come
    back is offline."""

    def __init__(
        self,
        publish: Callable[[str, bytes, bool], None],
        later: Callable[[Callable[[], None]], Timer],
        now_ms: Callable[[], int],
    ) -> None:
        self._publish = publish
        self._later = later
        self._now_ms = now_ms
        self._devices: dict[str, int] = {}
        """Of users who are online, or were a moment ago: what was last told."""
        self._claimed: dict[str, str] = {}
        self._leaving: dict[str, Timer] = {}

    def devices_changed(self, user: str, devices: int) -> None:
        """A device of the user connected or went."""
        if not devices:
            if user not in self._leaving:
                self._leaving[user] = self._later(lambda: self._left(user))
            return
        if (timer := self._leaving.pop(user, None)) is not None:
            timer.cancel()
        if self._devices.get(user) != devices:
            self._devices[user] = devices
            self._publish(user, self._document(user), True)

    def _left(self, user: str) -> None:
        del self._leaving[user]
        self._devices.pop(user, None)
        self._claimed.pop(user, None)
        self._publish(user, self._document(user), False)

    def flush(self) -> None:
        """The node stops: who left is offline now."""
        for user, timer in list(self._leaving.items()):
            timer.cancel()
            self._left(user)

    def claim(self, user: str, payload: bytes) -> bytes | Refusal | None:
        """A client says how its user is: `{"status": ...}`, the bare word, or nothing for what the
        server makes of it. Returns what to retain; None if that is not to be said now."""
        status = _status(payload)
        if status is None:
            return Refusal(
                "invalid_payload",
                ReasonCode.PAYLOAD_FORMAT_INVALID,
                f"presence must be one of {', '.join(STATUSES)}, or an object with it as status",
            )
        if user in self._leaving:
            return None  # the last will of a device that may be back in a moment
        if status in ("online", "offline"):
            self._claimed.pop(user, None)
        elif user in self._devices:
            self._claimed[user] = status
        return self._document(user)

    def _document(self, user: str) -> bytes:
        devices = self._devices.get(user, 0)
        status = self._claimed.get(user, "online") if devices else "offline"
        return msgspec.json.encode(PresenceDocument(user, status, self._now_ms(), devices))


def _status(payload: bytes) -> str | None:
    text = payload.strip()
    if not text:
        return "online"
    try:
        status = _decode(text).status if text.startswith(b"{") else text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return status if status in STATUSES else None

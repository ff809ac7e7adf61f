"""Presence: one retained message per user, written by the server.

The server publishes `online` with a user's first device, and `offline` some seconds after the last device
has gone. A user who is back within these seconds stays online. In between a client may publish `away`,
`busy` or `online` for its user. A client's `offline`, usually its will, counts for that device alone: the
user stays online while other devices are connected.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from broker.domain.errors import ReasonCode, Refusal
from broker.domain.presence import STATUSES, PresenceDocument

_CLAIMS = ("away", "busy")


class _Claim(msgspec.Struct):
    status: str


_decode = msgspec.json.Decoder(_Claim).decode


class Timer(Protocol):
    """A scheduled callback, as asyncio's `TimerHandle`."""

    def cancel(self) -> None:
        """Do not call it."""
        ...


class Presence:
    """The presence of all users of a node.

    `publish(user, document, live)` publishes and retains a document. `later(user, callback)` schedules a
    callback after the grace period, at whose end a user is offline. `claimed(user, status)` is called when a
    client has published a presence."""

    def __init__(
        self,
        publish: Callable[[str, bytes, bool], None],
        later: Callable[[str, Callable[[], None]], Timer],
        now_ms: Callable[[], int],
        claimed: Callable[[str, str], None] = lambda _user, _status: None,
    ) -> None:
        self._tell_claim = claimed
        self._publish = publish
        self._later = later
        self._now_ms = now_ms
        self._devices: dict[str, int] = {}
        """User -> the number of devices last published, for users who are online or within the grace
        period."""
        self._claimed: dict[str, str] = {}
        self._leaving: dict[str, Timer] = {}

    def devices_changed(
        self, user: str, devices: int, here: int | None = None, claimed: str | None = None
    ) -> None:
        """A device of the user connected or disconnected. `devices`: how many are connected now. `here`: how
        many of them to this node, if there are others, which publish a number of their own. `claimed`: what a
        client has published on another node."""
        if claimed in _CLAIMS and user not in self._devices:
            self._claimed[user] = claimed
        if not devices:
            if user not in self._leaving:
                self._leaving[user] = self._later(user, lambda: self._left(user))
            return
        if (timer := self._leaving.pop(user, None)) is not None:
            timer.cancel()
        if here is not None or self._devices.get(user) != devices:
            self._devices[user] = devices
            self._publish(user, self._document(user), True)
        if here == 0:
            self._forget(user)

    def knows(self, user: str) -> bool:
        """Whether this node knows what the user claims to be."""
        return user in self._devices

    def claimed_elsewhere(self, user: str, status: str) -> None:
        """A client has published a presence on another node, which publishes the document."""
        if user not in self._devices:
            return
        if status in _CLAIMS:
            self._claimed[user] = status
        else:
            self._claimed.pop(user, None)

    def gone(self, user: str) -> None:
        """The user has left this node for another one, which publishes the document."""
        if self._leaving.pop(user, None) is not None:
            self._forget(user)

    def set_offline(self, user: str) -> None:
        """The node that the user was connected to is gone."""
        self._publish(user, self._document(user), False)

    def _forget(self, user: str) -> None:
        self._devices.pop(user, None)
        self._claimed.pop(user, None)

    def _left(self, user: str) -> None:
        if self._leaving.pop(user, None) is None:
            return  # back while the other nodes were asked
        self._forget(user)
        self._publish(user, self._document(user), False)

    def flush(self) -> None:
        """The node stops: end all grace periods now."""
        for user, timer in list(self._leaving.items()):
            timer.cancel()
            self._left(user)

    def claim(self, user: str, payload: bytes) -> bytes | Refusal | None:
        """A client publishes a presence: `{"status": ...}`, the bare word, or an empty payload for the
        server's own status. Returns the document to retain, or None to retain nothing."""
        status = _status(payload)
        if status is None:
            return Refusal(
                "invalid_payload",
                ReasonCode.PAYLOAD_FORMAT_INVALID,
                f"presence must be one of {', '.join(STATUSES)}, or a JSON object with one of them as status",
            )
        if user in self._leaving:
            return None  # the will of the last device, which may be back within the grace period
        if status in ("online", "offline"):
            self._claimed.pop(user, None)
        elif user in self._devices:
            self._claimed[user] = status
        self._tell_claim(user, status)
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

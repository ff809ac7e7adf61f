"""Presence: a retained message per user, kept true by the server and stamped by it.

The server says `online` with a user's first device and `offline` after the last. In between a
client may say `away`, `busy` or `online` for its user. A client's `offline`, usually its last
will, speaks for that device alone: while others are connected the user stays online.
"""

from collections.abc import Callable

import msgspec

from broker.domain.errors import ReasonCode, Refusal

STATUSES = ("online", "away", "busy", "offline")


class PresenceDocument(msgspec.Struct, frozen=True):
    """What is retained. `last_seen` is Unix ms, `devices` how many are connected."""

    user_id: str
    status: str
    last_seen: int
    devices: int


class _Claim(msgspec.Struct):
    status: str


_decode = msgspec.json.Decoder(_Claim).decode


class Presence:
    """`devices(user)` counts a user's connections; `publish(user, document, live)` retains."""

    def __init__(
        self,
        devices: Callable[[str], int],
        publish: Callable[[str, bytes, bool], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._devices = devices
        self._publish = publish
        self._now_ms = now_ms
        self._claimed: dict[str, str] = {}

    def devices_changed(self, user: str, devices: int) -> None:
        """A device of the user connected or went."""
        if not devices:
            self._claimed.pop(user, None)
        self._publish(user, self._document(user), devices > 0)

    def claim(self, user: str, payload: bytes) -> bytes | Refusal:
        """A client says how its user is: `{"status": ...}`, the bare word, or nothing for what the
        server makes of it. Returns what to retain."""
        status = _status(payload)
        if status is None:
            return Refusal(
                "invalid_payload",
                ReasonCode.PAYLOAD_FORMAT_INVALID,
                f"presence must be one of {', '.join(STATUSES)}, or an object with it as status",
            )
        if status in ("online", "offline"):
            self._claimed.pop(user, None)
        elif self._devices(user):
            self._claimed[user] = status
        return self._document(user)

    def _document(self, user: str) -> bytes:
        devices = self._devices(user)
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


def offline_document(user: str, last_seen: int) -> bytes:
    """The presence of a user whose node went without saying so."""
    return msgspec.json.encode(PresenceDocument(user, "offline", last_seen, 0))

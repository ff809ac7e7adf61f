"""The request of a WebSocket handshake (RFC 6455, 4.2.1), sans-IO.

`Upgrade`, `Connection` and `Sec-WebSocket-Protocol` are lists of tokens. A client may give a list in one
header line or in several, in any order, with other tokens and white space. Firefox, for example, sends
`Connection: keep-alive, Upgrade`.
"""

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

PATH = "/mqtt"
SUBPROTOCOL = "mqtt"
VERSION = "13"
"""The version of the WebSocket protocol (RFC 6455, 4.1)."""

_DRAFTS = ("7", "8")
"""Versions of drafts with the same frames. Old clients still send them."""

# origin-form or absolute-form (RFC 9112, 3.2): RFC 6455 allows a client to send either.
_TARGET = re.compile(r"(?:(?:https?|wss?)://[^/?#]*)?(?P<path>/[^?#]*)?(?:\?.*)?", re.IGNORECASE | re.DOTALL)


class Headers(Protocol):
    """The header lines of a request. Names are compared without case."""

    def getall(self, key: str, default: list[str]) -> list[str]:
        """The values of all lines with this name."""
        ...


class HandshakeRefusal(msgspec.Struct, frozen=True):
    """Why a handshake is refused: the HTTP status, the reason, and further headers of the answer."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


def check(target: str, headers: Headers) -> HandshakeRefusal | None:
    """Why the request cannot become MQTT over WebSocket, or None if it can. The key is not checked."""
    found = _TARGET.fullmatch(target)
    if found is None or found["path"] != PATH:
        return HandshakeRefusal(404, f"there is nothing but {PATH}")
    if "websocket" not in map(str.lower, tokens(headers, "Upgrade")):
        return HandshakeRefusal(400, "Upgrade must name websocket")
    if "upgrade" not in map(str.lower, tokens(headers, "Connection")):
        return HandshakeRefusal(400, "Connection must name Upgrade")
    if headers.getall("Sec-WebSocket-Version", []) not in ([VERSION], *([draft] for draft in _DRAFTS)):
        reason = f"the version of WebSocket must be {VERSION}"  # RFC 6455, 4.4
        return HandshakeRefusal(426, reason, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)))
    # Subprotocols are compared with case (RFC 6455, 4.2.2).
    if SUBPROTOCOL not in tokens(headers, "Sec-WebSocket-Protocol"):  # [MQTT-6.0.0-3]
        return HandshakeRefusal(400, f"the client must offer the subprotocol {SUBPROTOCOL!r}")
    return None


def tokens(headers: Headers, name: str) -> Sequence[str]:
    """The tokens of a header that is a list (RFC 9110, 5.6.1). A list may have empty elements."""
    values = ",".join(headers.getall(name, [])).split(",")
    return [token for value in values if (token := value.strip(" \t"))]

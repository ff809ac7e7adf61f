"""MQTT over WebSocket (MQTT 3.1.1, chapter 6), on picows."""

import logging

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)

from broker.net.connection import Connection
from broker.net.hub import Hub
from broker.net.listeners import Door, file_of
from broker.net.reachability import REASON
from broker.net.tcp import HIGH_WATER
from broker.net.upgrade import SUBPROTOCOL, check

logger = logging.getLogger(__name__)

CHECKS = 4
"""How often it is checked within `limits.unreachable_after` whether a client is silent. The first check may
find the last frame; the second pings."""

# Close codes that picows sends by itself when the client breaks the WebSocket protocol.
_OFFENCES = frozenset((WSCloseCode.PROTOCOL_ERROR, WSCloseCode.MESSAGE_TOO_BIG, WSCloseCode.INVALID_TEXT))


class _WebSocketTransport:
    """A WebSocket as the transport of a `Connection`. Each write is one binary frame [MQTT-6.0.0-1]."""

    __slots__ = ("_ws",)

    def __init__(self, ws: WSTransport) -> None:
        self._ws = ws

    def write(self, data: bytes) -> None:
        self._ws.send(WSMsgType.BINARY, data)

    def get_write_buffer_size(self) -> int:
        return self._ws.underlying_transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._ws.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        self._ws.underlying_transport.resume_reading()

    def close(self) -> None:
        if not self._ws.is_disconnected:
            self._ws.send_close(WSCloseCode.OK)
            self._ws.disconnect()

    def abort(self) -> None:
        self._ws.disconnect(graceful=False)


class WebSocketClient(WSListener):
    """Connects a WebSocket with a `Connection`."""

    def __init__(self, hub: Hub, door: Door) -> None:
        self._hub = hub
        self._door = door
        self._connection: Connection | None = None
        self._in_message = False
        self._frames: list[bytes] = []
        self._transport: WSTransport
        self._is_heard = False
        """Whether a frame has come since the last check."""
        self._silent = 0
        """How many checks have found that no frame has come."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        stream = transport.underlying_transport
        address, port, wait = self._door.arrival(file_of(stream))
        stream.set_write_buffer_limits(high=min(HIGH_WATER, self._hub.limits.outbox_bytes))
        self._connection = Connection(
            self._hub, _WebSocketTransport(transport), (address, port), stream, wait
        )
        self._hub.deadlines.watch(self, self._hub.loop.time())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        connection = self._connection
        if connection is None:
            return
        self._is_heard = True
        if frame.msg_type is WSMsgType.CLOSE:
            self._hand_over()
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif reason := self._violation(frame):
            self._hand_over()
            connection.close(f"protocol error: WebSocket {reason}")
        elif frame.msg_type in (WSMsgType.BINARY, WSMsgType.CONTINUATION):
            # A packet may span frames, and a frame may hold several packets [MQTT-6.0.0-2].
            self._in_message = not frame.fin
            # Frames that arrived together are handed over together, as over TCP: a visit counts what is
            # in them, not the frames.
            if not self._frames:
                self._hub.loop.call_soon(self._hand_over)
            self._frames.append(frame.get_payload_as_bytes())

    def _hand_over(self) -> None:
        if self._frames and self._connection is not None:
            data, self._frames = b"".join(self._frames), []
            self._connection.received(data)

    def _violation(self, frame: WSFrame) -> str | None:
        """The rule that a frame breaks, or None. picows leaves these checks to its user."""
        if frame.rsv1 or frame.rsv2 or frame.rsv3:  # RFC 6455, 5.2
            return "frame with a reserved bit"
        if frame.msg_type is WSMsgType.TEXT:  # [MQTT-6.0.0-1]
            return "text frame"
        if frame.msg_type is WSMsgType.CONTINUATION and not self._in_message:  # RFC 6455, 5.4
            return "continuation frame without a message"
        if frame.msg_type is WSMsgType.BINARY and self._in_message:
            return "message inside an unfinished message"
        return None

    def check(self, now: float) -> float | None:
        """See `deadlines.Watched`. A client that is silent is pinged. If it stays silent, it is gone, though
        a proxy may keep its connection open."""
        connection = self._connection
        if connection is None or connection.closed:
            return None
        # While this side does not read, it would not see an answer.
        self._silent = 0 if self._is_heard or connection.is_paused else self._silent + 1
        self._is_heard = False
        if self._silent == 1:
            self._transport.send_ping()
        elif self._silent == CHECKS - 1:
            connection.close(REASON)
            return None
        return now + self._hub.limits.unreachable_after / CHECKS

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.outbox.drained()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._hand_over()
        if self._connection is not None:
            # None, whatever its type says, if neither side has sent a close frame.
            closing = transport.close_handshake
            if closing is not None and closing.sent is not None and closing.sent.code in _OFFENCES:
                self._connection.close(f"protocol error: WebSocket: {closing.sent.reason}")
            self._connection.lost()
            self._hub.deadlines.forget(self)
            self._connection = None


def accept(
    hub: Hub, door: Door, request: WSUpgradeRequest
) -> WSListener | WSUpgradeResponseWithListener | None:
    """Answer a WebSocket handshake, see `upgrade.check`. A refused one is counted."""
    refusal = check(request.path.decode(errors="replace"), request.headers)
    if refusal is not None:
        hub.metrics.refused[f"websocket_{refusal.status}"] += 1
        body = f"{refusal.reason}\n".encode()
        refused = WSUpgradeResponse.create_error_response(refusal.status, body, refusal.headers)
        return WSUpgradeResponseWithListener(refused, None)
    # picows checks these headers again after this function, and does not know that they are lists. They
    # are replaced by the one token that was found in them.
    request.headers["Upgrade"] = "websocket"
    request.headers["Connection"] = "Upgrade"
    response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL})
    return WSUpgradeResponseWithListener(response, WebSocketClient(hub, door))

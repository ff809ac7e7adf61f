"""How long a connection may go on: till its CONNECT is due, while its client is heard from, and
while its credential is good. Sans-IO: `now` is passed in, in seconds of a clock that never goes back.
"""

_PATIENCE = 1.5
"""Keep-alives a client may be silent for [MQTT-3.1.2-24]."""


class Lifetime:
    """The deadlines of one connection, which starts at `now` and must bring its CONNECT within
    `connect_timeout` seconds."""

    __slots__ = ("_connect_by", "_last_seen", "_silence")

    def __init__(self, now: float, connect_timeout: float) -> None:
        self._connect_by: float | None = now + connect_timeout
        self._last_seen = now
        self._silence = 0.0

    def seen(self, now: float) -> None:
        """The client was heard from, or could not be: what it sends is not read."""
        self._last_seen = now

    def opened(self, keep_alive: int) -> None:
        """CONNECT was accepted. `keep_alive`: seconds, as in CONNECT; 0 is none."""
        self._connect_by = None
        self._silence = keep_alive * _PATIENCE

    def check(self, now: float, expires_in: float | None = None) -> str | float | None:
        """Why the connection is over at `now`; or else when to look again, None for never.

        `expires_in`: seconds till the client's credential ends, None if it does not.
        """
        if self._connect_by is not None:
            return "no CONNECT in time" if now >= self._connect_by else self._connect_by
        due = []
        if self._silence:
            silent_until = self._last_seen + self._silence
            if now >= silent_until:
                return "keep-alive timeout"
            due.append(silent_until)
        if expires_in is not None:
            if expires_in <= 0:
                return "token expired"
            due.append(now + expires_in)
        return min(due, default=None)

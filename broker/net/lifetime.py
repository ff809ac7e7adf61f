"""The deadlines of a connection: CONNECT timeout, keep-alive, expiry of the credential.

Sans-IO: `now` is passed in, in seconds of a monotonic clock.
"""

_PATIENCE = 1.5
"""A client may be silent for this many keep-alive intervals [MQTT-3.1.2-24]."""

_NOTICE = 60.0
"""The end of a credential is announced so many seconds before."""
_AGAIN = 1.0
"""Seconds until an announcement that did not reach the client is made again."""


class Lifetime:
    """The deadlines of one connection. It begins at `now`, and its CONNECT must succeed within
    `connect_timeout` seconds."""

    __slots__ = ("_announced", "_connect_by", "_last_seen", "_silence")

    def __init__(self, now: float, connect_timeout: float) -> None:
        self._connect_by: float | None = now + connect_timeout
        self._last_seen = now
        self._silence = 0.0
        self._announced = False

    def seen(self, now: float) -> None:
        """The client sent something, or could not because the broker does not read from it."""
        self._last_seen = now

    def opened(self, keep_alive: int) -> None:
        """CONNECT was accepted. `keep_alive`: seconds, as in CONNECT; 0 for none."""
        self._connect_by = None
        self._silence = keep_alive * _PATIENCE

    def is_ending(self, expires_in: float | None) -> bool:
        """Whether it is to be announced now that the credential expires in so many seconds."""
        return expires_in is not None and 0 < expires_in <= _NOTICE and not self._announced

    def announced(self) -> None:
        """The client has been told that its credential is about to expire."""
        self._announced = True

    def renewed(self) -> None:
        """The client has another credential."""
        self._announced = False

    def check(self, now: float, expires_in: float | None = None) -> str | float | None:
        """The reason to close the connection at `now`, or the time of the next check, None for never.

        `expires_in`: seconds until the client's credential expires, None if it does not.
        """
        if self._connect_by is not None:
            return "no CONNECT in time" if now >= self._connect_by else self._connect_by
        if not self._silence and expires_in is None:
            return None
        due = []
        if self._silence:
            silent_until = self._last_seen + self._silence
            if now >= silent_until:
                return "keep-alive timeout"
            due.append(silent_until)
        if expires_in is not None:
            if expires_in <= 0:
                return "token expired"
            notice_in = expires_in if self._announced else max(expires_in - _NOTICE, _AGAIN)
            due.append(now + min(expires_in, notice_in))
        return min(due)

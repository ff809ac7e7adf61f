"""Typing notices: stamped by the server, limited in rate, never stored."""

from collections.abc import Callable

import msgspec

from broker.domain import conversation
from broker.domain.errors import ReasonCode, Refusal
from broker.domain.topics import Kind, Topic

_BURST = 3.0
_PER_SECOND = 1.0
_REMEMBERED = 10_000


class _Notice(msgspec.Struct):
    typing: bool = True


_decode = msgspec.json.Decoder(_Notice).decode


class TypingNotices:
    """Limits notices per user and topic: three at once, then one a second (a token bucket).

    `steady_ms` are ms that never go back. `dropped(reason)` counts the notices beyond that."""

    def __init__(self, steady_ms: Callable[[], int], dropped: Callable[[str], None]) -> None:
        self._steady_ms = steady_ms
        self._dropped = dropped
        self._left: dict[tuple[str, str], tuple[float, int]] = {}
        """(user, topic) -> notices left in the bucket, and the time of that count."""

    def stamp(self, user: str, topic: Topic, payload: bytes) -> bytes | Refusal | None:
        """The payload to forward when `user` publishes to a typing topic, or None to drop it.

        `payload` is empty or `{"typing": true}` while the user types, `{"typing": false}` at the end."""
        try:
            notice = _decode(payload) if payload.strip() else _Notice()
        except (msgspec.DecodeError, RecursionError) as error:
            return Refusal("invalid_payload", ReasonCode.PAYLOAD_FORMAT_INVALID, f"typing: {error}")
        if not self._take(user, topic.name):
            self._dropped("typing_rate")
            return None
        is_group = topic.kind is Kind.GROUP_TYPING
        where = conversation.group_id(topic.owner) if is_group else conversation.private_id(user, topic.owner)
        return msgspec.json.encode(
            {"event": "typing", "from_user_id": user, "conversation_id": where, "typing": notice.typing}
        )

    def _take(self, user: str, topic: str) -> bool:
        now = self._steady_ms()
        left, then = self._left.get((user, topic), (_BURST, now))
        left = min(_BURST, left + (now - then) / 1000 * _PER_SECOND)
        if len(self._left) >= _REMEMBERED:
            self._left.clear()
        self._left[user, topic] = (left - 1 if left >= 1 else left, now)
        return left >= 1

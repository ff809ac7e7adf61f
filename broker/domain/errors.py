"""Refusals and errors; each says whose fault it is.

`Refusal` is a value: the sender asked for something that is not allowed or not valid, and is answered.
The exceptions: `RefusedError` is a refusal where a value cannot be returned, `RemoteError` is the client's
fault and ends its connection, `StoreError` is the server's fault.
"""

from collections.abc import Mapping

import msgspec


class ReasonCode:
    """The MQTT 5.0 reason codes (section 2.4) that this platform sends."""

    NOT_AUTHORIZED = 0x87
    UNSPECIFIED = 0x80
    TOPIC_NAME_INVALID = 0x90
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99


class Refusal(msgspec.Struct, frozen=True):
    """Why a publish was not accepted: the error code (docs/topics.md, "Events"), its MQTT reason code, and
    a text for people."""

    code: str
    reason_code: int
    detail: str


class RefusedError(Exception):
    """An operation is refused: the error `code` (docs/api.md, "Errors"), and `detail`, a text for people.
    `facts`: what else a program needs to go on."""

    def __init__(self, code: str, detail: str, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.facts = facts or {}


class RemoteError(Exception):
    """The client broke the protocol. `reason` is the text for the log line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreError(Exception):
    """The store failed or cannot be reached. Nothing of the batch was committed."""


class StoreUnavailableError(StoreError):
    """The store cannot commit now, but may later: its disk is full, or has failed. The same commit may be
    tried again."""


class DuplicateMessageError(Exception):
    """A batch holds an idempotency key or an offset that is already stored. Nothing was committed."""

"""What can be refused, and whose fault an error is.

`Refusal` is a value: the sender asked for something that is not allowed or not valid,
and is told so. The exceptions are for what cannot be answered in place:
`RemoteError` is the client's fault and ends its connection, `StoreError` is ours.
"""

import msgspec


class ReasonCode:
    """MQTT 5.0 reason codes (section 2.4) this platform answers with."""

    NOT_AUTHORIZED = 0x87
    UNSPECIFIED = 0x80
    TOPIC_NAME_INVALID = 0x90
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99


class Refusal(msgspec.Struct, frozen=True):
    """Why a publish was not accepted: the contract's error code and its MQTT reason code."""

    code: str
    reason_code: int
    detail: str


class RefusedError(Exception):
    """An operation is refused: the contract's error `code`, and words for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class RemoteError(Exception):
    """The peer broke the protocol; `reason` is the words for the log line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreError(Exception):
    """The store did not do what it was asked; nothing of the batch was committed."""


class DuplicateMessageError(Exception):
    """A batch held a (sender, topic, client_msg_id) that is stored already."""

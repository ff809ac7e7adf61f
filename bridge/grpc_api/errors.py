"""Failures of operations as gRPC statuses and trailing metadata."""

import logging
from collections.abc import Mapping

import grpc

from bridge.grpc_api.im_pb2 import ErrorInfo, Status, StatusDetail
from broker.domain.errors import RefusedError, StoreError

logger = logging.getLogger(__name__)

CODE_KEY = "im-error-code"
"""The trailing metadata that holds the error code."""

_DETAILS_KEY = "grpc-status-details-bin"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_DOMAIN = "parley"

_STATUSES = {
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "exists": grpc.StatusCode.ALREADY_EXISTS,
    "duplicate_conflict": grpc.StatusCode.ALREADY_EXISTS,
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "invalid_params": grpc.StatusCode.INVALID_ARGUMENT,
    "invalid_payload": grpc.StatusCode.INVALID_ARGUMENT,
    "out_of_range": grpc.StatusCode.OUT_OF_RANGE,
    "conflict": grpc.StatusCode.ABORTED,
    "dismissed": grpc.StatusCode.FAILED_PRECONDITION,
    "too_late": grpc.StatusCode.FAILED_PRECONDITION,
    "is_owner": grpc.StatusCode.FAILED_PRECONDITION,
    "quota": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "not_supported": grpc.StatusCode.UNIMPLEMENTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
}
"""gRPC status by error code. All other codes mean that a rule forbids the call: PERMISSION_DENIED."""


def describe(error: Exception, method: str) -> tuple[grpc.StatusCode, str, str]:
    """Status, details and error code for an exception that `method` raised. Details of an unexpected one
    go to the log only: the caller gets `internal error`."""
    if isinstance(error, RefusedError):
        return _STATUSES.get(error.code, grpc.StatusCode.PERMISSION_DENIED), error.detail, error.code
    if isinstance(error, StoreError):
        logger.error("%s: the store failed: %s", method, error)
        return grpc.StatusCode.UNAVAILABLE, "the store failed, try again later", "unavailable"
    logger.error("%s failed", method, exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error", "internal"


def trailer(
    status: grpc.StatusCode, details: str, code: str, facts: Mapping[str, object]
) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata of a failure: the code by itself, and as the `reason` of a
    google.rpc.ErrorInfo, where clients of gRPC's richer error model look for it. The ErrorInfo also has
    those facts that are texts or numbers."""
    known = {name: str(fact) for name, fact in facts.items() if isinstance(fact, str | int)}
    value = ErrorInfo(reason=code, domain=_DOMAIN, metadata=known)
    info = StatusDetail(type_url=_ERROR_INFO, value=value)
    number: int = status.value[0]
    rich = Status(code=number, message=details, details=[info])
    return (CODE_KEY, code), (_DETAILS_KEY, rich.SerializeToString())

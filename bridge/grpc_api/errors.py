"""What a failure of an operation is on the wire."""

import logging

import grpc

from broker.domain.errors import StoreError
from broker.ports import DirectoryError

logger = logging.getLogger(__name__)

CODE_KEY = "im-error-code"
"""Trailing metadata: the contract's error code."""

_STATUSES = {
    "not_found": grpc.StatusCode.NOT_FOUND,
    "exists": grpc.StatusCode.ALREADY_EXISTS,
    "duplicate_conflict": grpc.StatusCode.ALREADY_EXISTS,
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "invalid_payload": grpc.StatusCode.INVALID_ARGUMENT,
    "is_owner": grpc.StatusCode.FAILED_PRECONDITION,
    "quota": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""All other codes are rules that said no: PERMISSION_DENIED."""


def describe(error: Exception, method: str) -> tuple[grpc.StatusCode, str, str]:
    """Status, details and error code of what `method` raised. What nobody foresaw stays on the
    node: the caller learns that it was an internal error, the log why."""
    if isinstance(error, DirectoryError):
        return _STATUSES.get(error.code, grpc.StatusCode.PERMISSION_DENIED), error.detail, error.code
    if isinstance(error, StoreError):
        logger.error("%s: the store failed: %s", method, error)
        return grpc.StatusCode.UNAVAILABLE, "the store is not available", "unavailable"
    logger.error("%s failed", method, exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error", "internal"

"""What the errors of a MongoDB server mean for the node: one line each, without the password."""

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ClientBulkWriteException,
    ConfigurationError,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from broker.domain.errors import StoreError, StoreUnavailableError

# The last two: an integer beyond 64 bits, a text that is no Unicode.
FAILURES = (PyMongoError, BSONError, OverflowError, UnicodeEncodeError)

_DUPLICATE = 11000
_WRITE_CONFLICT = 112
_MAY_PASS = frozenset(
    (
        24,  # LockTimeout
        50,  # MaxTimeMSExpired
        64,  # WriteConcernTimeout
        91,  # ShutdownInProgress
        100,  # UnsatisfiableWriteConcern: too few members are up
        _WRITE_CONFLICT,
        189,  # PrimarySteppedDown
        251,  # NoSuchTransaction
        262,  # ExceededTimeLimit
        14031,  # OutOfDiskSpace
    )
)
_TRANSIENT = "TransientTransactionError"
_UNKNOWN = "UnknownTransactionCommitResult"

STANDALONE = "the server is not part of a replica set, which transactions need"
_NO_MAJORITY = "a majority of the replica set does not confirm writes"
_WRONG_USER = "the user name or password is wrong, or the user may not use this database"
_REASONS = {
    13: _WRONG_USER,  # Unauthorized
    18: _WRONG_USER,  # AuthenticationFailed
    20: STANDALONE,  # IllegalOperation
    64: _NO_MAJORITY,
    100: _NO_MAJORITY,
}


def is_duplicate(error: BaseException | None) -> bool:
    """Whether a key was taken."""
    return isinstance(error, DuplicateKeyError) or _DUPLICATE in _codes(error)


def is_transient(error: BaseException) -> bool:
    """Whether a transaction failed, and nothing of it is written, in a way that may not happen again."""
    cause = _cause(error)
    is_labelled = isinstance(cause, PyMongoError) and cause.has_error_label(_TRANSIENT)
    return is_labelled or _WRITE_CONFLICT in _codes(error)


def is_write_conflict(error: OperationFailure) -> bool:
    """Whether a write met that of a transaction, and nothing of it is written."""
    return error.code == _WRITE_CONFLICT or error.has_error_label(_TRANSIENT)


def is_unreachable(error: BaseException) -> bool:
    """Whether no primary was found in the time that is given for that."""
    return isinstance(_cause(error), ServerSelectionTimeoutError)


def is_in_doubt(error: PyMongoError) -> bool:
    """Whether a commit that failed may have been made."""
    return error.has_error_label(_UNKNOWN) or may_pass(error)


def may_pass(error: BaseException) -> bool:
    """Whether what failed may work later, with nothing changed but the server's state."""
    cause = _cause(error)
    # AutoReconnect is also: no server was found, no connection became free, a primary that is none any more.
    if isinstance(cause, AutoReconnect | ExecutionTimeout | WriteConcernError):
        return True
    return bool(_MAY_PASS & (_codes(error) | {getattr(cause, "code", None)}))


def store_error(error: BaseException, where: str) -> StoreError:
    """The error to raise instead. `where` names the servers and the database."""
    kind = StoreUnavailableError if may_pass(error) else StoreError
    return kind(f"mongodb {where}: {_reason(_cause(error))}")


def unavailable(error: BaseException) -> StoreUnavailableError:
    """The same for a node that runs and tells anybody why it is not ready: without the names of servers."""
    cause = _cause(error)
    if isinstance(cause, WaitQueueTimeoutError):
        reason = "no connection became free"
    elif isinstance(cause, ServerSelectionTimeoutError):
        reason = _unreachable(cause).partition(" (")[0]
    elif isinstance(cause, NetworkTimeout | ExecutionTimeout):
        reason = "no answer in time"
    elif isinstance(cause, AutoReconnect):
        reason = "the connection was lost"
    else:
        reason = _reason(cause)
    return StoreUnavailableError(f"mongodb: {reason}")


def _codes(error: BaseException | None) -> set[int | None]:
    """The codes of those writes of a list that failed."""
    if not isinstance(error, BulkWriteError | ClientBulkWriteException):
        return set()
    return {each.get("code") for each in (error.details or {}).get("writeErrors", ())}


def _cause(error: BaseException) -> BaseException:
    """What went wrong with a list of writes as a whole, if it was not one of them."""
    if isinstance(error, ClientBulkWriteException) and isinstance(error.error, PyMongoError):
        return error.error
    return error


def _reason(error: BaseException) -> str:
    if isinstance(error, ServerSelectionTimeoutError):
        return _unreachable(error)
    if isinstance(error, WriteConcernError):
        return _NO_MAJORITY
    if isinstance(error, OperationFailure):
        return _REASONS.get(error.code or 0) or f"{_line(error)} (code {error.code})"
    if isinstance(error, ConfigurationError):
        return f"the address or an option of it is wrong: {_line(error)}"
    return _line(error)


def _unreachable(error: ServerSelectionTimeoutError) -> str:
    text = _line(error)
    # The driver's text goes on with its timeouts and a description of each server.
    text = text.partition(", Timeout:")[0].partition(" (configured timeouts:")[0]
    if "No replica set members match selector" in text or "No primary" in text:
        return "the replica set has no primary"
    return f"cannot be reached ({text})"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(", full error:")[0]

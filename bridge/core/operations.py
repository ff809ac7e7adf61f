"""The operations of the services. Each is one handler, offered over MQTT RPC and gRPC alike;
administration operations are offered over gRPC only.

A handler is `async (caller, parameters) -> result`. Parameters and result are msgspec structs: requests
are checked against them, and docs/api.md is generated from them. A handler that answers with a stream
returns an asynchronous iterator of results.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Protocol, TypeVar, get_type_hints

import msgspec

from broker.domain.directory import SYSTEM
from broker.domain.errors import RefusedError
from broker.domain.json_limits import MAX_DEPTH, MAX_DIGITS, is_too_deep, is_too_long

P = TypeVar("P", bound=msgspec.Struct)

Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="A user or group id.")]
# At most 8,999,999,999,999,999,999: what a signed 64-bit integer of a store holds.
MessageId = Annotated[
    str, msgspec.Meta(pattern=r"^([0-9]{1,18}|[1-8][0-9]{18})\Z", description="A message id.")
]
ConversationId = Annotated[
    str,
    msgspec.Meta(
        min_length=3,
        max_length=140,
        description="`p:<user>:<user>` (the smaller user id first) or `g:<group>`.",
    ),
]
Seq = Annotated[int, msgspec.Meta(ge=1, lt=2**32, description="The seq of a message.")]
# Below 2^53, as JavaScript keeps larger integers only roughly.
Millis = Annotated[int, msgspec.Meta(ge=0, lt=2**53, description="Unix milliseconds.")]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=1000, description="The most items a page may have.")]
After = Annotated[
    str, msgspec.Meta(max_length=64, description="The `next` of the previous page; empty for the first.")
]
Note = Annotated[str, msgspec.Meta(max_length=256)]
MAX_NAME = 128
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Url = Annotated[str, msgspec.Meta(max_length=1024, description="A URL.")]
Message = Annotated[msgspec.Raw, msgspec.Meta(description="As it is delivered to subscribers.")]


_SHOWN = 200
"""Characters kept of each end of a validation error, which may quote a long request."""


class Caller(msgspec.Struct, frozen=True):
    """The user who calls. `is_system`: the caller is the server, an administrator, or a service that acts
    for no user. `client_id`: the MQTT client that calls; "" over gRPC. `by_service`: an administrator or
    service calls on behalf of the user."""

    user: str
    is_system: bool = False
    client_id: str = ""
    by_service: bool = False


THE_SYSTEM = Caller(SYSTEM, is_system=True)


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of an operation. Unknown fields are refused, so that a misspelt one is not ignored."""


class Done(msgspec.Struct):
    """The empty result: the operation succeeded."""


Handler = Callable[[Caller, Any], Awaitable[Any]]


class Operation(msgspec.Struct, frozen=True):
    """An operation and its name, e.g. `messages.sync`. `result` is the type of the result."""

    name: str
    parameters: type[msgspec.Struct]
    result: Any
    handler: Handler

    @property
    def summary(self) -> str:
        """What the operation does: the handler's docstring."""
        return self.handler.__doc__ or ""


def content_json(content: Any, name: str = "content") -> bytes:
    """The parameter `content` or `data` as it is stored: JSON. Refused (`invalid_params`) if readers could
    not decode it: it is nested too deeply, or has too long a number."""
    try:
        encoded = msgspec.json.encode(content)
    except RecursionError:
        pass
    else:
        if is_too_long(encoded):
            raise RefusedError("invalid_params", f"{name}: a number of more than {MAX_DIGITS} digits")
        if not is_too_deep(encoded):
            return encoded
    raise RefusedError("invalid_params", f"{name}: nested deeper than {MAX_DEPTH} levels")


class Operations:
    """All operations, by name."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}

    def add(self, name: str, handler: Callable[[Caller, P], Awaitable[Any]]) -> None:
        """Offer a handler under a name. Its annotations give the types of parameters and result."""
        hints = get_type_hints(handler, include_extras=True)
        kinds = [hint for key, hint in hints.items() if key not in ("caller", "return")]
        self._operations[name] = Operation(name, kinds[0], hints["return"], handler)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def __getitem__(self, name: str) -> Operation:
        """The operation with a name. Raises `RefusedError` (`unknown_method`) if there is none."""
        operation = self._operations.get(name)
        if operation is None:
            raise RefusedError("unknown_method", f"there is no method {name[:64]!r}")
        return operation

    async def call(self, caller: Caller, name: str, request: Mapping[str, Any]) -> Any:
        """Check the parameters of a request, run the handler, and return its result.

        Raises:
            RefusedError: `unknown_method`, `invalid_params`, or a refusal of the handler.
            StoreError: a store failed.
        """
        operation = self[name]
        try:
            parameters = msgspec.convert(request, operation.parameters)
        except msgspec.ValidationError as error:
            detail = str(error)
            if len(detail) > 2 * _SHOWN:
                detail = f"{detail[:_SHOWN]}…{detail[-_SHOWN:]}"
            raise RefusedError("invalid_params", detail) from None
        return await operation.handler(caller, parameters)


class Handlers(Protocol):
    """A class that holds the handlers of one subject."""

    def register(self, operations: Operations) -> None:
        """Add the handlers to `operations`."""
        ...


def operations_of(classes: Iterable[type[Handlers]]) -> Operations:
    """The operations of handler classes, for reading their types. They must not be called: the handlers
    are not initialised, so that no store or broker is needed."""
    operations = Operations()
    for handlers in classes:
        handlers.__new__(handlers).register(operations)
    return operations

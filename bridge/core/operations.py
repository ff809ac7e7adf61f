"""The operations of the services: each is one handler, offered over MQTT RPC and gRPC alike.
The administration's are offered over gRPC alone.

A handler is `async (caller, parameters) -> result`, where parameters and result are msgspec
structs: they are what is checked, and what docs/api.md is generated from. One that answers with a
stream returns an asynchronous iterator of results.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Protocol, TypeVar, get_type_hints

import msgspec

from broker.domain.directory import SYSTEM
from broker.domain.errors import RefusedError
from broker.domain.message import MAX_DEPTH, is_too_deep

P = TypeVar("P", bound=msgspec.Struct)

Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="a user or group id")]
MessageId = Annotated[
    str, msgspec.Meta(pattern=r"^([0-9]{1,18}|[1-8][0-9]{18})\Z", description="a message id")
]
ConversationId = Annotated[
    str,
    msgspec.Meta(min_length=3, max_length=140, description="`p:<user>:<user>` (ids in order) or `g:<group>`"),
]
Seq = Annotated[int, msgspec.Meta(ge=1, lt=2**32, description="the place of a message in its conversation")]
Millis = Annotated[int, msgspec.Meta(ge=0, lt=2**53, description="Unix milliseconds")]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=1000, description="how many a page has at most")]
After = Annotated[str, msgspec.Meta(max_length=64, description="`next` of the page before, empty to begin")]
Note = Annotated[str, msgspec.Meta(max_length=256)]
MAX_NAME = 128
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Url = Annotated[str, msgspec.Meta(max_length=1024, description="a URL")]
Message = Annotated[msgspec.Raw, msgspec.Meta(description="as it is delivered")]


_SHOWN = 200
"""Characters of either end of what is wrong: it may quote the request."""


class Caller(msgspec.Struct, frozen=True):
    """Who calls. `is_system`: the server itself, an administrator, or a service that speaks for it."""

    user: str
    is_system: bool = False


THE_SYSTEM = Caller(SYSTEM, is_system=True)


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """Parameters of an operation; what is not named is refused."""


class Done(msgspec.Struct):
    """Nothing more to say."""


Handler = Callable[[Caller, Any], Awaitable[Any]]


class Operation(msgspec.Struct, frozen=True):
    """An operation by its contract name, e.g. `messages.sync`."""

    name: str
    parameters: type[msgspec.Struct]
    result: Any
    handler: Handler

    @property
    def summary(self) -> str:
        """What it does: the handler's docstring."""
        return self.handler.__doc__ or ""


def content_json(content: Any) -> bytes:
    """A message's content as it is stored. Refused (`invalid_params`) if nested too deeply."""
    try:
        encoded = msgspec.json.encode(content)
    except RecursionError:
        pass
    else:
        if not is_too_deep(encoded):
            return encoded
    raise RefusedError("invalid_params", f"content: nested deeper than {MAX_DEPTH}")


class Operations:
    """All operations, by name."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}

    def add(self, name: str, handler: Callable[[Caller, P], Awaitable[Any]]) -> None:
        """Offer a handler; its annotations say the types."""
        hints = get_type_hints(handler, include_extras=True)
        kinds = [hint for key, hint in hints.items() if key not in ("caller", "return")]
        self._operations[name] = Operation(name, kinds[0], hints["return"], handler)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def __getitem__(self, name: str) -> Operation:
        """The operation of a name. Raises `RefusedError` (`unknown_method`) if there is none."""
        operation = self._operations.get(name)
        if operation is None:
            raise RefusedError("unknown_method", f"there is no method {name[:64]!r}")
        return operation

    async def call(self, caller: Caller, name: str, request: Mapping[str, Any]) -> Any:
        """Check the parameters and run the handler.

        Raises:
            RefusedError: `unknown_method`, `invalid_params`, or what the handler refuses.
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
    """The handlers of some operations that belong together."""

    def register(self, operations: Operations) -> None:
        """Offer them."""
        ...


def operations_of(classes: Iterable[type[Handlers]]) -> Operations:
    """The operations of classes of handlers, to be read and not called: nothing is initialised."""
    operations = Operations()
    for handlers in classes:
        handlers.__new__(handlers).register(operations)
    return operations

"""What services hand to users who are connected: `push.users`."""

from typing import Annotated, Any

import msgspec

from bridge.core.operations import Caller, Id, Operations, Parameters
from broker.domain.errors import RefusedError
from broker.ports import BrokerPort

_MOST_BYTES = 64 * 1024


class PushParameters(Parameters):
    """The payload, and for whom it is."""

    user_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=1000)]
    payload: Any
    """Any JSON, of at most 64 KiB. It arrives as the `payload` of an event `push`."""


class PushResult(msgspec.Struct):
    """Who was reached."""

    reached: list[str]
    """The users who have a connected device that is subscribed to their events, in the order of the call."""
    missed: list[str]
    """The others."""


class Pushes:
    """The handler."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("push.users", self.push)

    async def push(self, caller: Caller, parameters: PushParameters) -> PushResult:
        """Hand a payload to the devices of users that are connected now, on whatever node: as the event
        `push` in `users/<id>/events`. It is not kept for those that are away. For services only, which call
        for no user; for users it is `not_authorized`."""
        if not caller.is_system:
            raise RefusedError("not_authorized", "only services may push")
        if len(msgspec.json.encode(parameters.payload)) > _MOST_BYTES:
            raise RefusedError("invalid_params", f"payload: more than {_MOST_BYTES} bytes")
        users = list(dict.fromkeys(parameters.user_ids))
        reached = await self._broker.push(users, {"event": "push", "payload": parameters.payload})
        known = set(reached)
        return PushResult(reached, [user for user in users if user not in known])

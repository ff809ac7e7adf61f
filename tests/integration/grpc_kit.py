"""A client of a node's services over gRPC."""

import json
from typing import Any

import grpc
import pytest

from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.node import DEADLINE, Node

Refused = tuple[grpc.StatusCode, str]

_STUBS = (
    services.MessageServiceStub,
    services.ConversationServiceStub,
    services.ContactServiceStub,
    services.UserServiceStub,
    services.GroupServiceStub,
)


class Client:
    """Calls a node's methods by their names."""

    def __init__(self, channel: grpc.Channel, *metadata: tuple[str, str]) -> None:
        self.metadata = metadata
        self._methods = {name: call for stub in _STUBS for name, call in vars(stub(channel)).items()}

    def call(self, method: str, request: Any, timeout: float = DEADLINE) -> Any:
        return self._methods[method](request, metadata=self.metadata, timeout=timeout)

    def refused(self, method: str, request: Any) -> Refused:
        """Status and code of a call that must fail."""
        with pytest.raises(grpc.RpcError) as raised:
            for _ in (
                (self.call(method, request),) if method != "SyncMessages" else self.call(method, request)
            ):
                pass
        return failure(raised.value)


def failure(error: Any) -> Refused:
    return error.code(), str(dict(error.trailing_metadata()).get("im-error-code", ""))


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def address(node: Node) -> str:
    return str(json.loads((node.data_dir / "node.json").read_bytes())["grpc"])

"""A client of a node's gRPC services that calls methods by name. Its methods raise `CommandError`."""

import os
import re
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self

# Must be set before gRPC is imported. gRPC's own warnings would only confuse the users of a command.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message_factory import GetMessageClass

from bridge.grpc_api import im_admin_pb2, im_pb2
from cli.errors import CommandError
from cli.location import Location
from cli.parsing import need_ids

# Any: descriptors are of classes of protobuf's C extension, which no annotation names.
_SERVICES: dict[str, Any] = {
    **im_pb2.DESCRIPTOR.services_by_name,
    **im_admin_pb2.DESCRIPTOR.services_by_name,
}

_PAGE = 1000
_AT_FIELD = re.compile(r"(.*) - at `\$\.(.+)`", re.DOTALL)

_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a web proxy in the environment does not lead to the node
    ("grpc.max_receive_message_length", -1),
)


class NodeClient:
    """A connection to a node. `timeout` is the limit for each call, in seconds; streams have none."""

    def __init__(self, location: Location, timeout: float) -> None:
        self._location = location
        self._timeout = timeout
        self._metadata = (("authorization", f"Bearer {location.token}"),)
        self._channel = _channel(location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self, method: str, user: str | None, **values: Any) -> Any:
        """Call a method by name, e.g. "GroupService/Mute", on behalf of a user, or (None) as the system.
        `values` are the request's fields; those that are None are left out."""
        need_ids({} if user is None else {"user_id": user})
        behalf = () if user is None else (("im-on-behalf-of", user),)
        call, request = self._call(self._channel.unary_unary, method, values)
        try:
            return call(request, timeout=self._timeout, metadata=(*self._metadata, *behalf))
        except grpc.RpcError as error:
            raise CommandError(self._reason(error)) from None

    def every(self, method: str, user: str | None, **values: Any) -> Iterator[Any]:
        """Call a method that answers with pages, until the last one. See `ask`."""
        by, limit = ("cursor", 500) if method.endswith("/ListConversations") else ("after", _PAGE)
        after = ""
        while True:
            page = self.ask(method, user, limit=limit, **values, **{by: after})
            yield page
            after = page.next
            if not after:
                return

    def listen(self, method: str, **values: Any) -> Generator[Any, None, None]:
        """The responses of a method that streams. Close the generator to end the call. See `ask`."""
        stream, request = self._call(self._channel.unary_stream, method, values)
        call = stream(request, metadata=self._metadata)
        connected = False
        try:
            # Blocks until the node has accepted the call or refused it. A refusal is raised by the loop.
            call.initial_metadata()
            connected = call.is_active()
            yield from call
        except grpc.RpcError as error:
            if connected and _error_code(error) is None:
                raise CommandError(f"the node at {self._location.address} ended the connection") from None
            raise CommandError(self._reason(error)) from None
        finally:
            call.cancel()

    def _call(self, kind: Any, method: str, values: dict[str, Any]) -> tuple[Any, Any]:
        """A method as a call of this kind of channel method, and the request."""
        service, _, name = method.partition("/")
        described = _SERVICES[service].methods_by_name[name]
        given = {field: value for field, value in values.items() if value is not None}
        request = GetMessageClass(described.input_type)(**given)  # `cli.main` handles text that is not UTF-8
        need_ids(given)
        call = kind(
            f"/im.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return call, request

    def _reason(self, error: Any) -> str:
        """One line that says why a call failed."""
        status = error.code()
        node = f"the node at {self._location.address}"
        if status is grpc.StatusCode.UNAUTHENTICATED:
            return f"{node} does not accept the token in {self._location.token_file}"
        if _error_code(error) is not None:
            return _in_words(str(error.details()))
        if status is grpc.StatusCode.UNAVAILABLE:
            return self._location.absent
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer from {node} within {self._timeout:g} s"
        if status is grpc.StatusCode.UNIMPLEMENTED:
            return f"{node} does not know this command: it runs another version"
        return f"{node} failed: {status.name}: {error.details()}"


def _channel(location: Location) -> grpc.Channel:
    known = location.certificate
    if known is None:
        return grpc.insecure_channel(location.address, options=_CHANNEL_OPTIONS)
    options: list[tuple[str, Any]] = list(_CHANNEL_OPTIONS)
    if known.name:  # the certificate need not name the address that the node listens on
        options.append(("grpc.ssl_target_name_override", known.name))
    credentials = grpc.ssl_channel_credentials(root_certificates=known.pem)
    return grpc.secure_channel(location.address, credentials, options=options)


def _in_words(detail: str) -> str:
    """A node's error detail. For a field that is not valid, the field's name is moved to the front."""
    match = _AT_FIELD.fullmatch(detail)
    return f"{match[2]}: {match[1][:1].lower()}{match[1][1:]}" if match else detail


def _error_code(error: Any) -> str | None:
    """The error code in the trailing metadata. Only errors of the node itself have one, failures of the
    connection do not."""
    for key, value in error.trailing_metadata() or ():
        if key == "im-error-code":
            return str(value)
    return None

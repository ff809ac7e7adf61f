"""A node's API: its administration as typed calls, its services by name. Everything here raises
`CommandError`."""

import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

# gRPC reads it when it is imported: its own warnings are not for the users of a command.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message_factory import GetMessageClass

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_pb2
from bridge.grpc_api.im_admin_pb2_grpc import AdminServiceStub
from cli.errors import CommandError
from cli.location import Location
from cli.parsing import need_ids

Page = TypeVar("Page", pb.ListUsersResponse, pb.ListGroupsResponse, pb.ListSessionsResponse)

_PAGE = 1000
_HISTORY_PAGE = 100
_AT_FIELD = re.compile(r"(.*) - at `\$\.(.+)`", re.DOTALL)

_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a node is never behind a web proxy
    ("grpc.max_receive_message_length", -1),
)


class NodeClient:
    """A connection to a node; `timeout` is in seconds and for each call."""

    def __init__(self, location: Location, timeout: float) -> None:
        self._location = location
        self._timeout = timeout
        self._metadata = (("authorization", f"Bearer {location.token}"),)
        self._channel = _channel(location)
        self._stub: Any = AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self, method: str, user: str | None, **values: Any) -> Any:
        """Call a method of im.proto ("GroupService/Mute") on behalf of a user, or as the system. The
        request's fields are `values`; what is None is not given."""
        service, _, name = method.partition("/")
        described = im_pb2.DESCRIPTOR.services_by_name[service].methods_by_name[name]
        given = {field: value for field, value in values.items() if value is not None}
        need_ids(given)
        need_ids({} if user is None else {"user_id": user})
        request = GetMessageClass(described.input_type)(**given)
        answer = GetMessageClass(described.output_type)
        call = self._channel.unary_unary(
            f"/im.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return self._answered(call, request, () if user is None else (("im-on-behalf-of", user),))

    def every(self, method: str, user: str | None, **values: Any) -> Iterator[Any]:
        """The pages of a list; see `ask`."""
        by, limit = ("cursor", 500) if method.endswith("/ListConversations") else ("after", _PAGE)
        return self._pages(lambda after: self.ask(method, user, limit=limit, **values, **{by: after}))

    def _call(self, method: str, request: Any) -> Any:
        return self._answered(getattr(self._stub, method), request)

    def _answered(self, call: Any, request: Any, metadata: Sequence[tuple[str, str]] = ()) -> Any:
        try:
            return call(request, timeout=self._timeout, metadata=(*self._metadata, *metadata))
        except grpc.RpcError as error:
            raise CommandError(self._reason(error)) from None

    def _pages(self, fetch: Callable[[str], Page]) -> Iterator[Page]:
        after = ""
        while True:
            page = fetch(after)
            yield page
            after = page.next
            if not after:
                return

    # --- accounts --------------------------------------------------------------------

    def add_user(self, user: str, password: str | None, role: str) -> None:
        self._call("AddUser", pb.AddUserRequest(user_id=user, password=password, role=role))

    def set_password(self, user: str, password: str) -> None:
        self._call("SetPassword", pb.SetPasswordRequest(user_id=user, password=password))

    def users(self) -> list[pb.User]:
        def fetch(after: str) -> pb.ListUsersResponse:
            page: pb.ListUsersResponse = self._call("ListUsers", pb.PageRequest(after=after, limit=_PAGE))
            return page

        return [user for page in self._pages(fetch) for user in page.users]

    def user(self, user: str) -> pb.GetUserResponse:
        reply: pb.GetUserResponse = self._call("GetUser", pb.GetUserRequest(user_id=user))
        return reply

    def set_user_disabled(self, user: str, disabled: bool) -> None:
        self._call("SetUserDisabled", pb.SetUserDisabledRequest(user_id=user, disabled=disabled))

    def remove_user(self, user: str) -> None:
        self._call("RemoveUser", pb.RemoveUserRequest(user_id=user))

    def issue_token(self, user: str, ttl: int) -> str:
        reply: pb.IssueTokenResponse = self._call(
            "IssueToken", pb.IssueTokenRequest(user_id=user, ttl_seconds=ttl)
        )
        return reply.token

    def revoke_tokens(self, user: str) -> None:
        self._call("RevokeTokens", pb.RevokeTokensRequest(user_id=user))

    # --- connections -----------------------------------------------------------------

    def sessions(self, user: str) -> list[pb.Session]:
        def fetch(after: str) -> pb.ListSessionsResponse:
            request = pb.ListSessionsRequest(user_id=user, after=after, limit=_PAGE)
            page: pb.ListSessionsResponse = self._call("ListSessions", request)
            return page

        return [session for page in self._pages(fetch) for session in page.sessions]

    def kick(self, user: str) -> int:
        """Returns how many connections there were."""
        reply: pb.KickUserResponse = self._call("KickUser", pb.KickUserRequest(user_id=user))
        return reply.connections

    # --- groups ----------------------------------------------------------------------

    def groups(self) -> list[pb.Group]:
        def fetch(after: str) -> pb.ListGroupsResponse:
            page: pb.ListGroupsResponse = self._call("ListGroups", pb.PageRequest(after=after, limit=_PAGE))
            return page

        return [group for page in self._pages(fetch) for group in page.groups]

    # --- messages --------------------------------------------------------------------

    def tail(self, topic: str, after: int | None) -> Generator[bytes, None, None]:
        """Entries as JSON, for ever; close the generator to end it."""
        call = self._stub.Tail(pb.TailRequest(topic=topic, after=after), metadata=self._metadata)
        connected = False
        try:
            # Blocks till the node has begun, or the call has failed and the loop says how.
            call.initial_metadata()
            connected = call.is_active()
            for entry in call:
                yield entry.json
        except grpc.RpcError as error:
            if connected and _error_code(error) is None:
                raise CommandError(f"the node at {self._location.address} ended the connection") from None
            raise CommandError(self._reason(error)) from None
        finally:
            call.cancel()

    def history(self, conversation: str, before: int, limit: int) -> list[bytes]:
        """The last `limit` messages before seq `before` (0: the last ones), as JSON, ascending."""
        from broker.domain.message import read_body

        found: list[bytes] = []
        while len(found) < limit:
            request = pb.HistoryRequest(
                conversation_id=conversation,
                before_seq=before,
                limit=min(limit - len(found), _HISTORY_PAGE),
            )
            page = list(self._call("History", request).messages)
            found[:0] = page
            before = read_body(page[0]).seq if page else 0
            if before <= 1:
                break
        return found

    def stats(self) -> dict[str, int]:
        return dict(self._call("Stats", pb.StatsRequest()).values)

    # --- what went wrong -------------------------------------------------------------

    def _reason(self, error: Any) -> str:
        """One line on why a call failed."""
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
            return f"{node} does not know this command: its version differs"
        return f"{node} failed: {status.name}: {error.details()}"


def _channel(location: Location) -> grpc.Channel:
    known = location.certificate
    if known is None:
        return grpc.insecure_channel(location.address, options=_CHANNEL_OPTIONS)
    options: list[tuple[str, Any]] = list(_CHANNEL_OPTIONS)
    if known.name:  # it need not be for the address the node listens on
        options.append(("grpc.ssl_target_name_override", known.name))
    credentials = grpc.ssl_channel_credentials(root_certificates=known.pem)
    return grpc.secure_channel(location.address, credentials, options=options)


def _in_words(detail: str) -> str:
    """What a node says, and of a value it does not take: the field first."""
    match = _AT_FIELD.fullmatch(detail)
    return f"{match[2]}: {match[1][:1].lower()}{match[1][1:]}" if match else detail


def _error_code(error: Any) -> str | None:
    """The contract's code, which tells a node's own answer from a failure on the way to it."""
    for key, value in error.trailing_metadata() or ():
        if key == "im-error-code":
            return str(value)
    return None

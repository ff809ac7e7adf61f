"""A node's administration as typed calls. Everything here raises `CommandError`."""

import os
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

# gRPC reads it when it is imported: its own warnings are not for the users of a command.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api.im_admin_pb2_grpc import AdminServiceStub
from cli.errors import CommandError
from cli.location import Location

Page = TypeVar("Page", pb.ListUsersResponse, pb.ListGroupsResponse, pb.GetGroupResponse)

_PAGE = 1000
_HISTORY_PAGE = 100
_MEMBERS_AT_ONCE = 10_000

_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a node is never behind a web proxy
    ("grpc.max_receive_message_length", -1),
)


class AdminClient:
    """A connection to a node; `timeout` is in seconds and for each call."""

    def __init__(self, location: Location, timeout: float) -> None:
        self._location = location
        self._timeout = timeout
        self._metadata = (("authorization", f"Bearer {location.token}"),)
        self._channel = grpc.insecure_channel(location.address, options=_CHANNEL_OPTIONS)
        self._stub: Any = AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def _call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=self._timeout, metadata=self._metadata)
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

    # --- groups ----------------------------------------------------------------------

    def create_group(self, group: str, name: str, owner: str, members: list[str]) -> pb.Group:
        reply: pb.Group = self._call(
            "CreateGroup", pb.CreateGroupRequest(group_id=group, name=name, owner=owner, members=members)
        )
        return reply

    def add_members(self, group: str, users: list[str]) -> int:
        """Returns how many were not members before."""
        return self._change_members("AddGroupMembers", group, users)

    def remove_members(self, group: str, users: list[str]) -> int:
        """Returns how many were members before."""
        return self._change_members("RemoveGroupMembers", group, users)

    def _change_members(self, method: str, group: str, users: list[str]) -> int:
        changed = 0
        for start in range(0, len(users), _MEMBERS_AT_ONCE):
            part = users[start : start + _MEMBERS_AT_ONCE]
            changed += self._call(method, pb.GroupMembersRequest(group_id=group, user_ids=part)).changed
        return changed

    def groups(self) -> list[pb.Group]:
        def fetch(after: str) -> pb.ListGroupsResponse:
            page: pb.ListGroupsResponse = self._call("ListGroups", pb.PageRequest(after=after, limit=_PAGE))
            return page

        return [group for page in self._pages(fetch) for group in page.groups]

    def group(self, group: str) -> tuple[pb.Group, list[pb.Membership]]:
        def fetch(after: str) -> pb.GetGroupResponse:
            request = pb.GetGroupRequest(group_id=group, after=after, limit=_PAGE)
            page: pb.GetGroupResponse = self._call("GetGroup", request)
            return page

        pages = list(self._pages(fetch))
        return pages[-1].group, [member for page in pages for member in page.members]

    def dismiss_group(self, group: str) -> None:
        self._call("DismissGroup", pb.DismissGroupRequest(group_id=group))

    # --- messages --------------------------------------------------------------------

    def send(self, sender: str, topic: str, payload: bytes) -> pb.SendMessageResponse:
        reply: pb.SendMessageResponse = self._call(
            "SendMessage", pb.SendMessageRequest(sender=sender, topic=topic, payload=payload)
        )
        return reply

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
            return str(error.details())
        if status is grpc.StatusCode.UNAVAILABLE:
            return self._location.absent
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer from {node} within {self._timeout:g} s"
        if status is grpc.StatusCode.UNIMPLEMENTED:
            return f"{node} does not know this command: its version differs"
        return f"{node} failed: {status.name}: {error.details()}"


def _error_code(error: Any) -> str | None:
    """The contract's code, which tells a node's own answer from a failure on the way to it."""
    for key, value in error.trailing_metadata() or ():
        if key == "im-error-code":
            return str(value)
    return None

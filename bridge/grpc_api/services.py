"""Offers the operations as gRPC services. One table maps methods to operations; everything else follows
from the .proto files and the types of the operations."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bridge.core.operations import Operations
from bridge.grpc_api import im_admin_pb2, im_pb2
from bridge.grpc_api.authentication import CALL
from bridge.grpc_api.convert import to_message, to_parameters

PACKAGE = "im"
ADMINISTRATION = "AdminService"
"""The service whose operations come from `bridge.administration`."""

SERVICES: Mapping[str, Mapping[str, str]] = {
    "MessageService": {
        "SendMessage": "messages.send",
        "SendMessages": "messages.send_batch",
        "SyncMessages": "messages.sync",
        "GetMessages": "messages.history",
        "GetMessagesById": "messages.get",
        "MarkRead": "messages.read",
        "MarkDelivered": "messages.delivered",
        "GetReaders": "messages.readers",
        "GetReadCounts": "messages.read_counts",
        "EditMessage": "messages.edit",
        "RecallMessage": "messages.recall",
    },
    "ConversationService": {
        "ListConversations": "conversations.list",
        "SetConversation": "conversations.set",
    },
    "ContactService": {
        "ListContacts": "contacts.list",
        "RequestContact": "contacts.request",
        "AcceptContact": "contacts.accept",
        "RejectContact": "contacts.reject",
        "RemoveContact": "contacts.remove",
        "RemarkContact": "contacts.remark",
        "BlockUser": "contacts.block",
        "UnblockUser": "contacts.unblock",
    },
    "UserService": {
        "GetUsers": "users.get",
        "UpdateUser": "users.update",
        "GetPresence": "presence.get",
        "PushToUsers": "push.users",
    },
    "GroupService": {
        "CreateGroup": "groups.create",
        "GetGroup": "groups.get",
        "ListGroups": "groups.list",
        "UpdateGroup": "groups.update",
        "DismissGroup": "groups.dismiss",
        "TransferGroup": "groups.transfer",
        "SetRole": "groups.set_role",
        "Mute": "groups.mute",
        "ListMembers": "groups.members",
        "AddMembers": "groups.add",
        "RemoveMembers": "groups.remove",
        "LeaveGroup": "groups.leave",
        "BanMember": "groups.ban",
        "UnbanMember": "groups.unban",
        "ListBans": "groups.bans",
        "JoinGroup": "groups.join",
        "ListJoinRequests": "groups.requests",
        "AcceptJoinRequest": "groups.accept",
        "RejectJoinRequest": "groups.reject",
    },
    ADMINISTRATION: {
        "AddUser": "admin.users.add",
        "SetPassword": "admin.users.set_password",
        "ListUsers": "admin.users.list",
        "GetUser": "admin.users.get",
        "SetUserDisabled": "admin.users.set_disabled",
        "RemoveUser": "admin.users.remove",
        "IssueToken": "admin.tokens.issue",
        "RevokeTokens": "admin.tokens.revoke",
        "ListSessions": "admin.sessions.list",
        "KickUser": "admin.sessions.kick",
        "CreateGroup": "admin.groups.create",
        "AddGroupMembers": "admin.groups.add_members",
        "RemoveGroupMembers": "admin.groups.remove_members",
        "ListGroups": "admin.groups.list",
        "GetGroup": "admin.groups.get",
        "DismissGroup": "admin.groups.dismiss",
        "SendMessage": "admin.messages.send",
        "Tail": "admin.messages.tail",
        "History": "admin.messages.history",
        "Stats": "admin.stats",
        "Verify": "admin.verify",
        "Backup": "admin.backup",
    },
}

# Any: descriptors are of classes of protobuf's C extension, which no annotation names.
DESCRIPTORS: Mapping[str, Any] = {
    **im_pb2.DESCRIPTOR.services_by_name,
    **im_admin_pb2.DESCRIPTOR.services_by_name,
}
"""Descriptors of the services, by name without package."""

NO_STREAMS: Mapping[str, "Stream"] = {}


class Stream(Protocol):
    """The handler of a method that answers with a stream."""

    def __call__(self, request: Any, context: Any) -> AsyncGenerator[Any, None]: ...


class OperationService:
    """One of `SERVICES`. `streams` are the methods whose stream is more than the results of one call of
    their operation."""

    def __init__(self, name: str, operations: Operations, streams: Mapping[str, Stream] = NO_STREAMS) -> None:
        self.name = f"{PACKAGE}.{name}"
        methods = DESCRIPTORS[name].methods_by_name
        self._handlers = {
            method: _handler(methods[method], operation, operations, streams)
            for method, operation in SERVICES[name].items()
        }

    def join(self, server: grpc.aio.Server) -> None:
        """Add this service to the server."""
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, self._handlers),))


def _handler(
    method: MethodDescriptor, name: str, operations: Operations, streams: Mapping[str, Stream]
) -> "grpc.RpcMethodHandler[Any, Any]":
    codecs: dict[str, Any] = {
        "request_deserializer": GetMessageClass(method.input_type).FromString,
        "response_serializer": GetMessageClass(method.output_type).SerializeToString,
    }

    async def result_of(request: Message) -> Any:
        parameters = to_parameters(request, operations[name].parameters)
        return await operations.call(CALL.get().caller, name, parameters)

    async def call(request: Message, _context: Any) -> Message:
        return to_message(method.output_type, await result_of(request))

    async def stream(request: Message, context: Any) -> AsyncGenerator[Message, None]:
        results = await result_of(request)
        await context.send_initial_metadata(())
        async for result in results:
            yield to_message(method.output_type, result)

    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(streams.get(method.name, stream), **codecs)
    return grpc.unary_unary_rpc_method_handler(call, **codecs)

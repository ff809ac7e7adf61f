"""`im.AdminService`: protobuf in, `bridge.handlers.admin.Administration`, protobuf out."""

# ruff: noqa: N802 - the calls have the names the .proto gives them

from collections.abc import AsyncGenerator
from typing import Any

import grpc

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api.im_admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from bridge.handlers.admin import Administration
from broker.ports import Account, Device, Group, Membership

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(AdminServiceServicer):
    """The calls by their names in im_admin.proto. They raise what the operations raise; the
    server's interceptor turns it into a status."""

    name = "im.AdminService"

    def __init__(self, administration: Administration) -> None:
        self._do = administration

    def join(self, server: grpc.aio.Server) -> None:
        """Have the server offer this service."""
        add_AdminServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    # --- accounts --------------------------------------------------------------------

    async def AddUser(self, request: pb.AddUserRequest, _: Context) -> pb.User:
        password = request.password if request.HasField("password") else None
        return _user(await self._do.add_user(request.user_id, password, request.role or "user"))

    async def SetPassword(self, request: pb.SetPasswordRequest, _: Context) -> pb.SetPasswordResponse:
        await self._do.set_password(request.user_id, request.password)
        return pb.SetPasswordResponse()

    async def ListUsers(self, request: pb.PageRequest, _: Context) -> pb.ListUsersResponse:
        accounts, following = await self._do.users(request.after, request.limit)
        return pb.ListUsersResponse(users=map(_user, accounts), next=following)

    async def GetUser(self, request: pb.GetUserRequest, _: Context) -> pb.GetUserResponse:
        account, memberships = await self._do.user(request.user_id)
        return pb.GetUserResponse(user=_user(account), groups=map(_membership, memberships))

    async def SetUserDisabled(
        self, request: pb.SetUserDisabledRequest, _: Context
    ) -> pb.SetUserDisabledResponse:
        await self._do.set_user_disabled(request.user_id, request.disabled)
        return pb.SetUserDisabledResponse()

    async def RemoveUser(self, request: pb.RemoveUserRequest, _: Context) -> pb.RemoveUserResponse:
        await self._do.remove_user(request.user_id)
        return pb.RemoveUserResponse()

    async def IssueToken(self, request: pb.IssueTokenRequest, _: Context) -> pb.IssueTokenResponse:
        return pb.IssueTokenResponse(token=await self._do.issue_token(request.user_id, request.ttl_seconds))

    async def RevokeTokens(self, request: pb.RevokeTokensRequest, _: Context) -> pb.RevokeTokensResponse:
        await self._do.revoke_tokens(request.user_id)
        return pb.RevokeTokensResponse()

    # --- connections -----------------------------------------------------------------

    async def ListSessions(self, request: pb.ListSessionsRequest, _: Context) -> pb.ListSessionsResponse:
        devices, following = await self._do.sessions(request.user_id, request.after, request.limit)
        return pb.ListSessionsResponse(sessions=map(_session, devices), next=following)

    async def KickUser(self, request: pb.KickUserRequest, _: Context) -> pb.KickUserResponse:
        return pb.KickUserResponse(connections=await self._do.kick(request.user_id))

    # --- groups ----------------------------------------------------------------------

    async def CreateGroup(self, request: pb.CreateGroupRequest, _: Context) -> pb.Group:
        return _group(
            await self._do.create_group(request.group_id, request.name, request.owner, request.members)
        )

    async def AddGroupMembers(self, request: pb.GroupMembersRequest, _: Context) -> pb.GroupMembersResponse:
        changed = await self._do.add_group_members(request.group_id, request.user_ids)
        return pb.GroupMembersResponse(changed=changed)

    async def RemoveGroupMembers(
        self, request: pb.GroupMembersRequest, _: Context
    ) -> pb.GroupMembersResponse:
        changed = await self._do.remove_group_members(request.group_id, request.user_ids)
        return pb.GroupMembersResponse(changed=changed)

    async def ListGroups(self, request: pb.PageRequest, _: Context) -> pb.ListGroupsResponse:
        groups, following = await self._do.groups(request.after, request.limit)
        return pb.ListGroupsResponse(groups=map(_group, groups), next=following)

    async def GetGroup(self, request: pb.GetGroupRequest, _: Context) -> pb.GetGroupResponse:
        group, members, following = await self._do.group(request.group_id, request.after, request.limit)
        return pb.GetGroupResponse(group=_group(group), members=map(_membership, members), next=following)

    async def DismissGroup(self, request: pb.DismissGroupRequest, _: Context) -> pb.DismissGroupResponse:
        await self._do.dismiss_group(request.group_id)
        return pb.DismissGroupResponse()

    # --- messages --------------------------------------------------------------------

    async def SendMessage(self, request: pb.SendMessageRequest, _: Context) -> pb.SendMessageResponse:
        body = await self._do.send(request.sender, request.topic, request.payload)
        return pb.SendMessageResponse(
            id=body.id, conversation_id=body.conversation_id, seq=body.seq, created_at=body.created_at
        )

    async def Tail(self, request: pb.TailRequest, context: Context) -> AsyncGenerator[pb.Entry, None]:
        after = request.after if request.HasField("after") else None
        entries = await self._do.tail(request.topic, after)
        await context.send_initial_metadata(())
        async for entry in entries:
            yield pb.Entry(json=entry)

    async def History(self, request: pb.HistoryRequest, _: Context) -> pb.HistoryResponse:
        return pb.HistoryResponse(
            messages=await self._do.history(request.conversation_id, request.before_seq, request.limit)
        )

    async def Stats(self, _request: pb.StatsRequest, _: Context) -> pb.StatsResponse:
        return pb.StatsResponse(values=await self._do.stats())


def _user(account: Account) -> pb.User:
    return pb.User(
        user_id=account.user_id,
        role=account.role,
        disabled=account.disabled,
        has_password=account.password_hash is not None,
        created_at=account.created_at,
    )


def _membership(membership: Membership) -> pb.Membership:
    return pb.Membership(
        group_id=membership.group_id,
        user_id=membership.user_id,
        role=membership.role,
        joined_seq=membership.joined_seq,
        muted_until=membership.muted_until,
    )


def _session(device: Device) -> pb.Session:
    return pb.Session(user_id=device.user, client_id=device.client_id, address=device.address)


def _group(group: Group) -> pb.Group:
    return pb.Group(
        group_id=group.group_id,
        name=group.name,
        owner=group.owner,
        member_count=group.members,
        created_at=group.created_at,
        dismissed_at=group.dismissed_at,
    )

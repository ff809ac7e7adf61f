"""The members of groups: adding, removing, joining, leaving and banning."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access, Seat
from bridge.core.group_changes import GroupChanges, named
from bridge.core.notices import notice
from bridge.core.operations import After, Caller, Done, Id, Millis, Note, Operations, PageSize, Parameters
from bridge.core.paging import page_of
from bridge.core.quotas import Quotas, reaching, removed
from bridge.core.retrying import retrying
from bridge.core.tails import head
from bridge.core.turns import in_turn
from bridge.handlers.groups import GroupParameters, MemberParameters
from broker.domain.directory import Ban, Group, JoinRequest, Membership
from broker.domain.errors import RefusedError
from broker.domain.permissions import GroupOperation, UserOperation
from broker.domain.topics import group_topic
from broker.ports import GroupDirectory, GroupWrite, MessageLog

SomeUsers = Annotated[list[Id], msgspec.Meta(min_length=1, max_length=10_000)]


class PageParameters(Parameters):
    """The group, and which page."""

    group_id: Id
    after: After = ""
    limit: PageSize = 100


class MemberView(msgspec.Struct):
    """A member."""

    user_id: str
    role: str
    """`owner`, `admin` or `member`."""
    joined_seq: int
    """Messages up to this seq are hidden from the member; 0: none are."""
    muted_until: int
    """Unix ms; 0: not muted."""


class MembersResult(msgspec.Struct):
    """One page, ordered by user id."""

    members: list[MemberView]
    next: str
    """The `after` of the next page; empty on the last page."""


class UsersParameters(Parameters):
    """The group and the users."""

    group_id: Id
    user_ids: SomeUsers


class ChangedResult(msgspec.Struct):
    """The users for whom this changed something."""

    user_ids: list[str]
    """Without users who were members before (`groups.add`), or who were not (`groups.remove`)."""


class BanParameters(Parameters):
    """The user to ban, and until when."""

    group_id: Id
    user_id: Id
    until: Millis = 0
    """Unix ms; 0: for ever."""


class BanView(msgspec.Struct):
    """A ban."""

    user_id: str
    until: int
    """Unix ms; 0: for ever. Bans that have ended are listed until they are removed."""


class BansResult(msgspec.Struct):
    """One page, ordered by user id."""

    bans: list[BanView]
    next: str
    """The `after` of the next page; empty on the last page."""


class JoinParameters(Parameters):
    """The group, and a text for its admins."""

    group_id: Id
    note: Note = ""
    """A text for the admins. Those whom the caller may send messages see it with the request."""


class JoinResult(msgspec.Struct):
    """The outcome."""

    status: Literal["joined", "requested"]
    """`joined`: the caller is a member now. `requested`: an admin has to accept."""


class RequestView(msgspec.Struct):
    """A join request."""

    user_id: str
    note: str
    """The user's text for the admins. Empty if the user may not send the caller messages."""
    created_at: int
    """Unix ms."""


class RequestsResult(msgspec.Struct):
    """One page, ordered by user id."""

    requests: list[RequestView]
    next: str
    """The `after` of the next page; empty on the last page."""


class Members:
    """The handlers."""

    def __init__(
        self,
        directory: GroupDirectory,
        access: Access,
        log: MessageLog,
        changes: GroupChanges,
        quotas: Quotas,
    ) -> None:
        self._directory = directory
        self._access = access
        self._log = log
        self._changes = changes
        self.turns = changes.turns
        self._quotas = quotas

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("groups.members", self.members)
        operations.add("groups.add", self.add)
        operations.add("groups.remove", self.remove)
        operations.add("groups.leave", self.leave)
        operations.add("groups.ban", self.ban)
        operations.add("groups.unban", self.unban)
        operations.add("groups.bans", self.bans)
        operations.add("groups.join", self.join)
        operations.add("groups.requests", self.requests)
        operations.add("groups.accept", self.accept)
        operations.add("groups.reject", self.reject)

    async def members(self, caller: Caller, parameters: PageParameters) -> MembersResult:
        """List the members of a group. For its members."""
        await self._access.seat(caller, parameters.group_id, GroupOperation.READ)
        limit = parameters.limit
        found = await self._directory.members(parameters.group_id, parameters.after, limit + 1)
        views = [MemberView(each.user_id, each.role, each.joined_seq, each.muted_until) for each in found]
        return MembersResult(*page_of(views, limit, lambda view: view.user_id))

    @in_turn
    @retrying
    async def add(self, caller: Caller, parameters: UsersParameters) -> ChangedResult:
        """Add users to a group. For members, or for the owner and admins only, as `who_may_invite` says.
        Nobody is added if one of the users does not exist (`not_found`), is banned (`banned`), has left the
        group (`has_left`: they come back only by [joining](#groupsjoin)), has blocked the caller or is
        blocked by the caller (`blocked`), or does not accept it from the caller: by `who_may_add_me`, or by
        `who_may_message` if the caller is not their contact (`not_contact`, `not_authorized`). Refused with
        `quota` if one of them was removed from this group too often within the hour."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.INVITE)
        users = list(dict.fromkeys(parameters.user_ids))
        await self._access.need_users(users)
        known = await self._directory.members_by_id(parameters.group_id, users)
        new = [user for user in users if user not in known]
        for user in await self._access.banned(parameters.group_id, new):
            raise RefusedError("banned", f"{user} is banned from group {parameters.group_id}")
        await self._access.may_come(caller, parameters.group_id, new)
        await self._access.each_lets(caller, new, UserOperation.ADD)
        for user in () if caller.is_system else new:
            self._quotas.repeats.need(removed(user, parameters.group_id))
        if new:
            await self._join(seat, caller.user, new, "members_added")
            await self._changes.tell(new, "added", parameters.group_id, caller.user)
        return ChangedResult(new)

    @in_turn
    @retrying
    async def remove(self, caller: Caller, parameters: UsersParameters) -> ChangedResult:
        """Remove members from a group. If the caller may not remove one of them, nobody is removed. For the
        owner and admins; only the owner may remove admins, and nobody may remove the owner (`is_owner`)."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.REMOVE)
        users = list(dict.fromkeys(parameters.user_ids))
        known = await self._directory.members_by_id(parameters.group_id, users)
        for user, member in known.items():
            self._access.touch(seat, member, user)
        gone = [user for user in users if user in known]
        if gone:
            await self._drop(seat, caller.user, gone, "members_removed")
            self._count_removed(caller, gone, parameters.group_id)
            await self._changes.tell(gone, "removed", parameters.group_id, caller.user)
        return ChangedResult(gone)

    @in_turn
    @retrying
    async def leave(self, caller: Caller, parameters: GroupParameters) -> Done:
        """Leave a group. The owner cannot leave (`is_owner`) without transferring the group first. Nobody
        can add the caller again; who wants to come back [joins](#groupsjoin). A mute is kept: it holds again
        once the caller is back, as it does for members who were removed or banned."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.LEAVE)
        await self._drop(seat, caller.user, [caller.user], "member_left", left=[caller.user])
        await self._changes.tell([caller.user], "left", parameters.group_id, caller.user)
        return Done()

    @in_turn
    @retrying
    async def ban(self, caller: Caller, parameters: BanParameters) -> Done:
        """Ban a user: remove them from the group if they are a member, and keep them from coming back. For
        the owner and admins; only the owner may ban an admin."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.BAN)
        user = parameters.user_id
        await self._access.need_users([user])
        member = await self._directory.membership(parameters.group_id, user)
        if member is not None:
            self._access.touch(seat, member, user)
        group = _next(seat.group)
        entry = notice(
            caller.user,
            group_topic(group.group_id),
            "member_banned",
            user_ids=[user],
            until=parameters.until,
        )
        write = GroupWrite(
            group,
            drop=[user] if member else [],
            ban=[Ban(group.group_id, user, parameters.until)],
            answered=[user],
        )
        # To anybody else the event would be a message: it has the group's id, which its owner chose.
        concerned = member or await self._directory.join_request(group.group_id, user)
        await self._changes.write(write, [entry])
        if member is not None:
            self._count_removed(caller, [user], group.group_id)
        if concerned:
            await self._changes.tell([user], "banned", group.group_id, caller.user)
        return Done()

    @in_turn
    @retrying
    async def unban(self, caller: Caller, parameters: MemberParameters) -> Done:
        """Remove a ban. For the owner and admins. Refused with `not_found` if the user is not banned."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.UNBAN)
        user = parameters.user_id
        if await self._directory.ban(parameters.group_id, user) is None:
            raise RefusedError("not_found", f"{user} is not banned from group {parameters.group_id}")
        group = _next(seat.group)
        entry = notice(caller.user, group_topic(group.group_id), "member_unbanned", user_ids=[user])
        await self._changes.write(GroupWrite(group, unban=[user]), [entry])
        return Done()

    async def bans(self, caller: Caller, parameters: PageParameters) -> BansResult:
        """List the bans of a group. For its owner and admins."""
        await self._access.seat(caller, parameters.group_id, GroupOperation.BAN)
        limit = parameters.limit
        found = await self._directory.bans(parameters.group_id, parameters.after, limit + 1)
        views = [BanView(ban.user_id, ban.until) for ban in found]
        return BansResult(*page_of(views, limit, lambda view: view.user_id))

    @in_turn
    @retrying
    async def join(self, caller: Caller, parameters: JoinParameters) -> JoinResult:
        """Join a group. If its `join` setting is `open`, the caller is a member at once; if it is `approval`,
        the owner and admins get a `group` event of type `requested`, once until they answer. A `closed` group
        can only be joined by users who have left it, with the approval of an admin; for others it does not
        exist (`not_found`). Refused with `quota` if the caller has joined, or asked to join, too often within
        the hour: any group, or this one."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.JOIN)
        await self._access.need_users([caller.user])
        known = await self._directory.join_request(parameters.group_id, caller.user)
        if seat.group.join != "open" and known is not None and known.note == parameters.note:
            return JoinResult("requested")
        quotas, key = self._quotas, reaching(caller.user, parameters.group_id)
        with quotas.joins.once(caller.user), quotas.repeats.once(key):
            if seat.group.join == "open":
                await self._join(seat, caller.user, [caller.user], "member_joined")
                return JoinResult("joined")
            await self._ask(seat.group, caller.user, parameters.note, is_new=known is None)
        return JoinResult("requested")

    async def _ask(self, group: Group, user: str, note: str, *, is_new: bool) -> None:
        asks = JoinRequest(group.group_id, user, note, self._access.now_ms())
        await self._changes.write(GroupWrite(_next(group), ask=[asks]), [])
        if is_new:
            admins = [admin.user_id for admin in await self._directory.admins(group.group_id)]
            told = await self._access.those_letting(user, admins, UserOperation.ASK_TO_JOIN)
            await self._changes.tell(sorted(told), "requested", group.group_id, user)

    async def requests(self, caller: Caller, parameters: PageParameters) -> RequestsResult:
        """List the join requests of a group. For its owner and admins. The texts of users who may not send
        the caller messages are left out."""
        await self._access.seat(caller, parameters.group_id, GroupOperation.ANSWER)
        limit = parameters.limit
        found = await self._directory.join_requests(parameters.group_id, parameters.after, limit + 1)
        heard = await self._access.those_let(caller, [each.user_id for each in found], UserOperation.MESSAGE)
        views = [
            RequestView(each.user_id, each.note if each.user_id in heard else "", each.created_at)
            for each in found
        ]
        return RequestsResult(*page_of(views, limit, lambda view: view.user_id))

    @in_turn
    @retrying
    async def accept(self, caller: Caller, parameters: MemberParameters) -> Done:
        """Accept a join request: the user becomes a member. For the owner and admins. Refused with
        `not_found` if the user has not asked."""
        seat = await self._requested(caller, parameters)
        await self._join(seat, caller.user, [parameters.user_id], "members_added")
        await self._changes.tell([parameters.user_id], "accepted", parameters.group_id, caller.user)
        return Done()

    @in_turn
    @retrying
    async def reject(self, caller: Caller, parameters: MemberParameters) -> Done:
        """Reject a join request. For the owner and admins. Refused with `not_found` if the user has not
        asked."""
        seat = await self._requested(caller, parameters)
        await self._changes.write(GroupWrite(_next(seat.group), answered=[parameters.user_id]), [])
        await self._changes.tell([parameters.user_id], "rejected", parameters.group_id, caller.user)
        return Done()

    @retrying
    async def remove_user(self, user: str) -> None:
        """Remove an account. In the same transaction it leaves all its groups. Refused (`is_owner`) while
        it owns a group that is not dismissed."""
        memberships = await self._directory.memberships(user)
        entries = [
            notice(user, group_topic(member.group_id), "member_left", **named([user]))
            for member in memberships
            if member.role != "owner"
        ]
        await self._changes.remove_user(user, [member.group_id for member in memberships], entries)

    async def _requested(self, caller: Caller, parameters: MemberParameters) -> Seat:
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.ANSWER)
        if await self._directory.join_request(parameters.group_id, parameters.user_id) is None:
            raise RefusedError("not_found", f"{parameters.user_id} has not asked to join")
        return seat

    def _count_removed(self, caller: Caller, users: Sequence[str], group_id: str) -> None:
        """Removing is never refused. But whoever is added and removed again and again gets two events each
        time, and these would displace all others that are kept for them: so `add` asks how often it was."""
        for user in () if caller.is_system else users:
            self._quotas.repeats.count(removed(user, group_id))

    async def _join(self, seat: Seat, by: str, users: Sequence[str], event: str) -> None:
        group = seat.group
        self._changes.need_space(group.members + len(users))
        floor = group.floor
        if not group.history_visible:
            floor = await head(self._log, group_topic(group.group_id))
        mutes = await self._directory.kept_mutes(group.group_id, users)
        put = [Membership(group.group_id, user, "member", floor, mutes.get(user, 0)) for user in users]
        entry = notice(by, group_topic(group.group_id), event, **named(users))
        await self._changes.write(GroupWrite(_next(group), put=put, answered=list(users)), [entry])

    async def _drop(
        self, seat: Seat, by: str, users: Sequence[str], event: str, left: Sequence[str] = ()
    ) -> None:
        entry = notice(by, group_topic(seat.group.group_id), event, **named(users))
        write = GroupWrite(_next(seat.group), drop=list(users), left=left)
        await self._changes.write(write, [entry])


def _next(group: Group) -> Group:
    return replace(group, version=group.version + 1)

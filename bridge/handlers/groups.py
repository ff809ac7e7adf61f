"""Groups: creating, finding and changing them. For their members see `bridge.handlers.members`.

The directory stores each change together with its `system` entry in one transaction. The entry is then
published to the group's log, so all members see the same history of the group.
"""

import base64
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access, Seat
from bridge.core.group_changes import GroupChanges, named
from bridge.core.notices import notice
from bridge.core.operations import (
    After,
    Caller,
    Done,
    Id,
    Millis,
    Name,
    Operations,
    PageSize,
    Parameters,
    Url,
)
from bridge.core.paging import page_of
from bridge.core.quotas import Quota
from bridge.core.retrying import retrying
from bridge.core.tails import head
from bridge.core.turns import in_turn
from broker.domain.directory import Group, JoinPolicy, Membership, Ranks
from broker.domain.errors import RefusedError
from broker.domain.permissions import GroupOperation, Rank, UserOperation
from broker.domain.topics import group_topic
from broker.ports import GroupDirectory, GroupWrite, MessageLog

Announcement = Annotated[str, msgspec.Meta(max_length=4096)]
Users = Annotated[list[Id], msgspec.Meta(max_length=10_000)]


class CreateParameters(Parameters):
    """The new group."""

    group_id: Id | None = None
    """Without it, the server chooses an id."""
    name: Name = ""
    """Without it, the name is the id."""
    members: Users = msgspec.field(default_factory=list)
    """The first members besides the caller."""
    avatar: Url = ""
    announcement: Announcement = ""
    """A text that the app shows to members."""
    who_may_invite: Ranks = "members"
    """Who may add users: all `members`, or the owner and `admins` only."""
    who_may_post: Ranks = "members"
    """Who may send messages: all `members`, or the owner and `admins` only."""
    join: JoinPolicy = "approval"
    """How users join by themselves. `open`: at once. `approval`: when an admin accepts. `closed`: not at
    all, and the group is hidden from users who are not members."""
    history_visible: bool = False
    """Whether new members can read the messages from before they joined."""


class GroupView(msgspec.Struct):
    """A group as the caller sees it."""

    group_id: str
    name: str
    avatar: str
    """A URL."""
    announcement: str
    """Empty if the caller is not a member."""
    owner: str
    """The owner's user id; empty if the group is dismissed and its owner's account was removed."""
    members: int
    """The number of members."""
    role: str
    """The caller's role: `owner`, `admin` or `member`; empty if the caller is not a member."""
    muted_until: int
    """Until this time (Unix ms) only the owner and admins may post; 0: not muted."""
    who_may_invite: str
    """`members` or `admins`."""
    who_may_post: str
    """`members` or `admins`."""
    join: str
    """`open`, `approval` or `closed`."""
    history_visible: bool
    """Whether new members can read the messages from before they joined."""
    dismissed_at: int
    """Unix ms; 0: not dismissed."""
    created_at: int
    """Unix ms."""


class GroupParameters(Parameters):
    """The group."""

    group_id: Id


class ListParameters(Parameters):
    """Which page."""

    after: After = ""
    limit: PageSize = 100


class ListResult(msgspec.Struct):
    """One page, ordered by group id."""

    groups: list[GroupView]
    next: str
    """The `after` of the next page; empty on the last page."""


class UpdateParameters(Parameters):
    """The group, and the settings to change, as for [groups.create](#groupscreate). A setting that is not
    given stays as it is."""

    group_id: Id
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    avatar: Url | None = None
    announcement: Announcement | None = None
    who_may_invite: Ranks | None = None
    who_may_post: Ranks | None = None
    join: JoinPolicy | None = None
    history_visible: bool | None = None


class MuteParameters(Parameters):
    """Whom to mute, and until when."""

    group_id: Id
    until: Millis
    """Unix ms. 0 or a time in the past removes the mute."""
    user_id: Id | None = None
    """The member to mute. Without it, all members except the owner and admins are muted."""


class RoleParameters(Parameters):
    """The member and their new role."""

    group_id: Id
    user_id: Id
    role: Literal["admin", "member"]


class MemberParameters(Parameters):
    """The group and the user."""

    group_id: Id
    user_id: Id


class HiddenGroupError(RefusedError):
    """The id of a new group is that of a group that the caller may not know of. An id cannot be given twice,
    so the caller learns of it; but not of many."""


class Groups:
    """The handlers."""

    def __init__(
        self,
        directory: GroupDirectory,
        access: Access,
        log: MessageLog,
        changes: GroupChanges,
        creations: Quota,
    ) -> None:
        self._directory = directory
        self._access = access
        self._log = log
        self._changes = changes
        self.turns = changes.turns
        self._creations = creations

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("groups.create", self.create)
        operations.add("groups.get", self.get)
        operations.add("groups.list", self.list_groups)
        operations.add("groups.update", self.update)
        operations.add("groups.mute", self.mute)
        operations.add("groups.set_role", self.set_role)
        operations.add("groups.transfer", self.transfer)
        operations.add("groups.dismiss", self.dismiss)

    async def create(self, caller: Caller, parameters: CreateParameters) -> GroupView:
        """Create a group. The caller becomes its owner. If one of the members does not exist (`not_found`)
        or may not be added by the caller (see [groups.add](#groupsadd)), nothing is created. The id of a
        dismissed group can be used again by its owner; the new members do not see its messages. Ids that
        differ in case only are one id (`exists`). Refused with `quota` if the caller has created too many
        groups within the hour; ids of groups that the caller may not know of count, too."""
        if caller.is_system:
            raise RefusedError("invalid_params", "a group needs an owner: create it on behalf of a user")
        with self._creations.once(caller.user, even_if=(HiddenGroupError,)):
            return await self.create_for(caller, caller.user, parameters)

    @retrying
    async def create_for(self, caller: Caller, owner: str, parameters: CreateParameters) -> GroupView:
        """Create a group for an owner, who is the caller unless that is the system."""
        users = list(dict.fromkeys((owner, *parameters.members)))
        self._changes.need_space(len(users))
        group_id = parameters.group_id or _new_id()
        known = await self._earlier(caller, group_id)
        await self._access.each_lets(caller, users, UserOperation.ADD)
        if known is not None:
            await self._access.may_come(caller, group_id, users)
        now = self._access.now_ms()
        # The messages of an earlier group with this id must stay hidden from the new members, and so must
        # its pending notices: they are published now, so that the floor comes after them.
        if known is not None:
            await self._changes.settle(group_id)
        floor = await head(self._log, group_topic(group_id))
        group = Group(
            group_id=group_id,
            name=parameters.name or group_id,
            owner=owner,
            created_at=now,
            members=len(users),
            avatar=parameters.avatar,
            announcement=parameters.announcement,
            who_may_invite=parameters.who_may_invite,
            who_may_post=parameters.who_may_post,
            join=parameters.join,
            history_visible=parameters.history_visible,
            floor=floor,
            version=known.version + 1 if known else 1,
        )
        put = [Membership(group_id, user, "owner" if user == owner else "member", floor) for user in users]
        write = GroupWrite(group, fresh=True, put=put)
        made = notice(caller.user, group_topic(group_id), "group_created", name=group.name, **named(users))
        await self._changes.write(write, [made])
        await self._changes.tell([user for user in users if user != owner], "added", group_id, caller.user)
        return _view(Seat(group, put[0], Rank.OWNER))

    async def _earlier(self, caller: Caller, group_id: str) -> Group | None:
        """The dismissed group whose id the caller may use again, if there is one. Refused (`exists`) if the
        id is not free."""
        known = await self._directory.group(group_id)
        existing = group_id if known is not None else await self._directory.same_group(group_id)
        # The members of a dismissed group can still read it, and lose that when its id is used again: only
        # its owner and the system may decide this.
        may_decide = known is not None and (caller.is_system or caller.user == known.owner)
        if existing is None or (known is not None and known.dismissed_at and may_decide):
            return known
        is_hidden = not await self._access.knows(caller, existing)
        same = "" if existing == group_id else ": an id that differs in case only"
        raise (HiddenGroupError if is_hidden else RefusedError)(
            "exists", f"group {group_id}{same} exists already"
        )

    async def get(self, caller: Caller, parameters: GroupParameters) -> GroupView:
        """Get a group. Users who are not members may see it, too, unless they are banned (`not_member`). A
        closed or dismissed group answers them as if it did not exist (`not_found`), in every operation."""
        return _view(await self._access.seat(caller, parameters.group_id, GroupOperation.SEE))

    async def list_groups(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """List the groups that the caller is a member of, without dismissed ones."""
        memberships = await self._directory.memberships(caller.user)
        groups = await self._directory.groups_by_id([member.group_id for member in memberships])
        seats = [
            Seat(groups[member.group_id], member, Rank(member.role))
            for member in memberships
            if member.group_id > parameters.after
            and member.group_id in groups
            and not groups[member.group_id].dismissed_at
        ]
        page, following = page_of(seats, parameters.limit, lambda seat: seat.group.group_id)
        return ListResult([_view(seat) for seat in page], following)

    @in_turn
    @retrying
    async def update(self, caller: Caller, parameters: UpdateParameters) -> GroupView:
        """Change the name, avatar, announcement or settings of a group. For its owner and admins."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.UPDATE)
        given = {
            name: value
            for name, value in msgspec.structs.asdict(parameters).items()
            if name != "group_id" and value is not None and value != getattr(seat.group, name)
        }
        if not given:
            return _view(seat)
        return await self._change(caller, seat, "group_updated", given, **given)

    @in_turn
    @retrying
    async def mute(self, caller: Caller, parameters: MuteParameters) -> GroupView:
        """Mute a member, or all members except the owner and admins: until a time they may not post. For
        the owner and admins; only the owner may mute an admin. Refused with `not_found` if the user is not a
        member. A member who leaves or is removed and comes back is still muted, and can be unmuted then."""
        if parameters.user_id is None:
            seat = await self._access.seat(caller, parameters.group_id, GroupOperation.MUTE_ALL)
            until = parameters.until
            return await self._change(caller, seat, "group_muted", {"muted_until": until}, until=until)
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.MUTE)
        member = await self._member(seat, parameters.user_id)
        self._access.touch(seat, member, member.user_id)
        muted = replace(member, muted_until=parameters.until)
        return await self._change(
            caller, seat, "member_muted", {}, put=[muted], user_ids=[member.user_id], until=parameters.until
        )

    @in_turn
    @retrying
    async def set_role(self, caller: Caller, parameters: RoleParameters) -> GroupView:
        """Make a member an admin, or an admin an ordinary member. For the owner. A rank is not given to a
        user if one of the two has blocked the other (`blocked`)."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.SET_ROLE)
        member = await self._member(seat, parameters.user_id)
        self._access.touch(seat, member, member.user_id)
        if member.role == parameters.role:
            return _view(seat)
        if parameters.role == "admin":
            await self._access.between(caller, member.user_id, UserOperation.APPOINT)
        put = [replace(member, role=parameters.role)]
        return await self._change(
            caller, seat, "role_set", {}, put=put, user_ids=[member.user_id], role=parameters.role
        )

    @in_turn
    @retrying
    async def transfer(self, caller: Caller, parameters: MemberParameters) -> GroupView:
        """Make another member the owner. The previous owner becomes an admin. For the owner. Refused with
        `blocked` if one of the two has blocked the other."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.TRANSFER)
        member = await self._member(seat, parameters.user_id)
        owner = await self._member(seat, seat.group.owner)
        if member.user_id == owner.user_id:
            return _view(seat)
        await self._access.between(caller, member.user_id, UserOperation.APPOINT)
        put = [replace(owner, role="admin"), replace(member, role="owner", muted_until=0)]
        changed = {"owner": member.user_id}
        return await self._change(caller, seat, "owner_changed", changed, put=put, user_ids=[member.user_id])

    @in_turn
    @retrying
    async def dismiss(self, caller: Caller, parameters: GroupParameters) -> Done:
        """Dismiss a group: nobody can post to it any more, its members can still read it and leave it. For
        the owner."""
        seat = await self._access.seat(caller, parameters.group_id, GroupOperation.DISMISS)
        await self._change(caller, seat, "group_dismissed", {"dismissed_at": self._access.now_ms()})
        return Done()

    async def _member(self, seat: Seat, user: str) -> Membership:
        member = await self._directory.membership(seat.group.group_id, user)
        if member is None:
            raise RefusedError("not_found", f"{user} is not a member of group {seat.group.group_id}")
        return member

    async def _change(
        self,
        caller: Caller,
        seat: Seat,
        event: str,
        fields: dict[str, Any],
        put: Sequence[Membership] = (),
        **told: Any,
    ) -> GroupView:
        group = replace(seat.group, version=seat.group.version + 1, **fields)
        entry = notice(caller.user, group_topic(group.group_id), event, **told)
        await self._changes.write(GroupWrite(group, put=put), [entry])
        mine = next((member for member in put if member.user_id == caller.user), seat.membership)
        return _view(Seat(group, mine, seat.rank))


def _new_id() -> str:
    return base64.b32encode(uuid.uuid4().bytes[:10]).decode().lower()


def _view(seat: Seat) -> GroupView:
    group = seat.group
    inside = seat.membership is not None or seat.rank is Rank.SYSTEM
    return GroupView(
        group_id=group.group_id,
        name=group.name,
        avatar=group.avatar,
        announcement=group.announcement if inside else "",
        owner=group.owner,
        members=group.members,
        role=seat.membership.role if seat.membership else "",
        muted_until=group.muted_until,
        who_may_invite=group.who_may_invite,
        who_may_post=group.who_may_post,
        join=group.join,
        history_visible=group.history_visible,
        dismissed_at=group.dismissed_at,
        created_at=group.created_at,
    )

"""Groups for operators, who act as the system: `admin.groups.…`."""

import msgspec

from bridge.core.operations import THE_SYSTEM, After, Caller, Done, Id, Name, Operations, Parameters
from bridge.core.paging import page_of
from bridge.handlers import groups as handlers
from bridge.handlers.admin.existing import PAGE, PageLimit, PageParameters, need_group
from bridge.handlers.groups import GroupParameters, Groups, Users
from bridge.handlers.members import Members, UsersParameters
from broker.ports import Group, GroupDirectory, Membership


class CreateParameters(Parameters):
    """The new group."""

    group_id: Id
    owner: Id
    """Becomes a member whether or not `members` names them."""
    name: Name = ""
    """Empty means the group's id."""
    members: Users = msgspec.field(default_factory=list)


class GetParameters(Parameters):
    """The group, and which page of its members."""

    group_id: Id
    after: After = ""
    limit: PageLimit = 0


class GroupView(msgspec.Struct):
    """A group."""

    group_id: str
    name: str
    owner: str
    member_count: int
    created_at: int
    """Unix ms."""
    dismissed_at: int
    """Unix ms; 0: not dismissed."""


class ListResult(msgspec.Struct):
    """One page, ordered by group id. `next` is empty on the last page."""

    groups: list[GroupView]
    next: str


class GetResult(msgspec.Struct):
    """A group and one page of its members, ordered by user id. `next` is empty on the last page."""

    group: GroupView
    members: list[Membership]
    next: str


class ChangedResult(msgspec.Struct):
    """How many users were added or removed, without those who were members before, or who were not."""

    changed: int


class GroupAdministration:
    """The handlers."""

    def __init__(self, directory: GroupDirectory, groups: Groups, members: Members) -> None:
        self._directory = directory
        self._groups = groups
        self._members = members

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.groups.create", self.create)
        operations.add("admin.groups.add_members", self.add_members)
        operations.add("admin.groups.remove_members", self.remove_members)
        operations.add("admin.groups.list", self.list_groups)
        operations.add("admin.groups.get", self.get)
        operations.add("admin.groups.dismiss", self.dismiss)

    async def create(self, caller: Caller, parameters: CreateParameters) -> GroupView:
        """Create a group. The id of a dismissed group can be used again; the new members do not see the
        messages of the old group."""
        group_id, users = parameters.group_id, list(dict.fromkeys(parameters.members))
        new = handlers.CreateParameters(group_id, parameters.name, users)
        await self._groups.create_for(THE_SYSTEM, parameters.owner, new)
        return _view(await need_group(self._directory, group_id))

    async def add_members(self, caller: Caller, parameters: UsersParameters) -> ChangedResult:
        """Add users to a group. If one of them does not exist, nobody is added."""
        return ChangedResult(len((await self._members.add(THE_SYSTEM, parameters)).user_ids))

    async def remove_members(self, caller: Caller, parameters: UsersParameters) -> ChangedResult:
        """Remove members from a group. If the owner is among them, nobody is removed (`is_owner`)."""
        return ChangedResult(len((await self._members.remove(THE_SYSTEM, parameters)).user_ids))

    async def list_groups(self, caller: Caller, parameters: PageParameters) -> ListResult:
        """List all groups, dismissed ones included."""
        limit = parameters.limit or PAGE
        groups = await self._directory.groups(parameters.after, limit + 1)
        page, following = page_of(groups, limit, lambda group: group.group_id)
        return ListResult([_view(group) for group in page], following)

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """Get a group and its members."""
        limit = parameters.limit or PAGE
        group = await need_group(self._directory, parameters.group_id)
        found = await self._directory.members(parameters.group_id, parameters.after, limit + 1)
        return GetResult(_view(group), *page_of(found, limit, lambda membership: membership.user_id))

    async def dismiss(self, caller: Caller, parameters: GroupParameters) -> Done:
        """Dismiss a group. Its members can still read it."""
        return await self._groups.dismiss(THE_SYSTEM, parameters)


def _view(group: Group) -> GroupView:
    return GroupView(
        group_id=group.group_id,
        name=group.name,
        owner=group.owner,
        member_count=group.members,
        created_at=group.created_at,
        dismissed_at=group.dismissed_at,
    )

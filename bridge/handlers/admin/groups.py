"""Any group, as an operator sees it: `admin.groups.…`."""

import msgspec

from bridge.core.operations import THE_SYSTEM, After, Caller, Done, Id, Name, Operations, Parameters
from bridge.core.paging import page_of
from bridge.handlers import groups as handlers
from bridge.handlers.admin.existing import PAGE, PageLimit, need_group
from bridge.handlers.groups import GroupParameters, Groups, Users
from bridge.handlers.members import Members, UsersParameters
from broker.domain.directory import SYSTEM
from broker.ports import Group, GroupDirectory, Membership


class CreateParameters(Parameters):
    """The new group."""

    group_id: Id
    owner: Id
    """Becomes a member, named in `members` or not."""
    name: Name = ""
    """Empty: the group's id."""
    members: Users = msgspec.field(default_factory=list)


class ListParameters(Parameters):
    """A page of all groups."""

    after: After = ""
    limit: PageLimit = 0


class GetParameters(Parameters):
    """The group, and a page of its members."""

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
    """Unix ms; 0 is not dismissed."""


class ListResult(msgspec.Struct):
    """Groups by id; `next` is empty on the last page."""

    groups: list[GroupView]
    next: str


class GetResult(msgspec.Struct):
    """A group, and members by user id; `next` is empty on the last page."""

    group: GroupView
    members: list[Membership]
    next: str


class ChangedResult(msgspec.Struct):
    """How many users this changed: who was a member already, or was none, is not counted."""

    changed: int


class GroupAdministration:
    """The handlers."""

    def __init__(self, directory: GroupDirectory, groups: Groups, members: Members) -> None:
        self._directory = directory
        self._groups = groups
        self._members = members

    def register(self, operations: Operations) -> None:
        """Offer the methods."""
        operations.add("admin.groups.create", self.create)
        operations.add("admin.groups.add_members", self.add_members)
        operations.add("admin.groups.remove_members", self.remove_members)
        operations.add("admin.groups.list", self.list_groups)
        operations.add("admin.groups.get", self.get)
        operations.add("admin.groups.dismiss", self.dismiss)

    async def create(self, caller: Caller, parameters: CreateParameters) -> GroupView:
        """Make a group. An id may be used again after its group was dismissed: the new members do not
        see what the old ones wrote."""
        group_id, users = parameters.group_id, list(dict.fromkeys(parameters.members))
        new = handlers.CreateParameters(group_id, parameters.name, users)
        await self._groups.create_for(SYSTEM, parameters.owner, new)
        return _view(await need_group(self._directory, group_id))

    async def add_members(self, caller: Caller, parameters: UsersParameters) -> ChangedResult:
        """Bring users into a group. One unknown user refuses all."""
        return ChangedResult(len((await self._members.add(THE_SYSTEM, parameters)).user_ids))

    async def remove_members(self, caller: Caller, parameters: UsersParameters) -> ChangedResult:
        """Take members out of a group. The owner among them refuses all (`is_owner`)."""
        return ChangedResult(len((await self._members.remove(THE_SYSTEM, parameters)).user_ids))

    async def list_groups(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """All groups, those that were dismissed, too."""
        limit = parameters.limit or PAGE
        groups = await self._directory.groups(parameters.after, limit + 1)
        page, following = page_of(groups, limit, lambda group: group.group_id)
        return ListResult([_view(group) for group in page], following)

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """A group and its members."""
        limit = parameters.limit or PAGE
        group = await need_group(self._directory, parameters.group_id)
        found = await self._directory.members(parameters.group_id, parameters.after, limit + 1)
        return GetResult(_view(group), *page_of(found, limit, lambda membership: membership.user_id))

    async def dismiss(self, caller: Caller, parameters: GroupParameters) -> Done:
        """End a group; its members can still read it."""
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

"""Access checks: collect the facts of a call from the directory, then ask `broker.domain.permissions`."""

from collections.abc import Sequence

import msgspec

from bridge.core.operations import Caller
from broker.domain import permissions
from broker.domain.conversation import group_of, participants
from broker.domain.directory import Account, Contact, Group, Membership, Profile
from broker.domain.errors import RefusedError
from broker.domain.ids import is_id
from broker.domain.permissions import Facts, GroupOperation, Rank, Relation, UserOperation
from broker.ports import Clock, ConversationState, ConversationStore, Directory


class AmendmentLimits(msgspec.Struct, frozen=True):
    """How long after sending a message its sender may recall or edit it, in ms."""

    recall_ms: int
    edit_ms: int


class Seat(msgspec.Struct, frozen=True):
    """A caller's standing in a group."""

    group: Group
    membership: Membership | None
    rank: Rank

    @property
    def floor(self) -> int:
        """Entries up to this seq are hidden from the caller."""
        return self.membership.joined_seq if self.membership else 0


class Pair(msgspec.Struct, frozen=True):
    """How two users stand to each other. A contact that is not stored is represented by an empty one."""

    mine: Contact
    theirs: Contact
    relation: Relation
    profile: Profile
    """The profile of the other user."""


class Room(msgspec.Struct, frozen=True):
    """A conversation a caller may read."""

    conversation_id: str
    seat: Seat | None
    """The caller's standing in the group; None in a private conversation."""
    peers: tuple[str, ...]
    """The other user of a private conversation, or both for the system. Empty in a group, and in a
    conversation with oneself."""
    floor: int
    """Messages up to this seq are hidden from the caller."""
    since: int
    """Messages sent before this time (Unix ms) are hidden from the caller. 0 unless the floor of a private
    conversation is not known: see `ConversationState.floor_seq`."""

    def hides(self, seq: int, sent_at: int) -> bool:
        """Whether the caller may not see a message, sent at `sent_at` (Unix ms)."""
        return seq <= self.floor or sent_at < self.since


_AFTER_REMOVAL = frozenset((UserOperation.EDIT, UserOperation.RECALL))
"""Operations on a private message that stay possible after the other user's account was removed."""


class Access:
    """Checks what a caller may do. Methods raise `RefusedError` for a refusal and `StoreError` when the
    directory fails."""

    def __init__(
        self,
        directory: Directory,
        conversations: ConversationStore,
        clock: Clock,
        limits: AmendmentLimits,
    ) -> None:
        self._directory = directory
        self._conversations = conversations
        self.now_ms = clock.now_ms
        self.growing_ms = clock.growing_ms
        self._limits = limits

    # --- users -----------------------------------------------------------------------

    async def account(self, user: str) -> Account:
        """A user's account, or an empty one: a user whom another authentication plugin accepted need
        not have an account in the directory."""
        return await self._directory.account(user) or Account(user)

    async def need_users(self, users: Sequence[str]) -> dict[str, Profile]:
        """The profiles of some users. Refused (`not_found`) if one of them does not exist."""
        profiles = await self._directory.profiles(users)
        for user in users:
            if user not in profiles:
                raise RefusedError("not_found", f"no user {user}")
        return profiles

    async def pair(self, user: str, peer: str, *, must_exist: bool = True) -> Pair:
        """How two users stand to each other. Refused (`not_found`) if `must_exist` and there is no such
        peer."""
        profiles = await (self.need_users if must_exist else self._directory.profiles)([peer])
        profile = profiles.get(peer) or Profile(peer)
        contacts = await self._directory.contacts_between(permissions.both_ways(user, [peer]))
        mine = contacts.get((user, peer)) or Contact(user, peer)
        theirs = contacts.get((peer, user)) or Contact(peer, user)
        return Pair(mine, theirs, permissions.relation(user, peer, contacts), profile)

    async def between(self, caller: Caller, peer: str, operation: UserOperation, sent_at: int = 0) -> Pair:
        """How the caller stands to another user. Refused if that does not allow the operation. `sent_at`
        (Unix ms) is when the message was sent that is to be edited or recalled."""
        pair = await self.pair(caller.user, peer, must_exist=operation not in _AFTER_REMOVAL)
        if not caller.is_system:
            facts = Facts(
                self.now_ms(),
                profile=pair.profile,
                sent_at=sent_at,
                recall_ms=self._limits.recall_ms,
                edit_ms=self._limits.edit_ms,
            )
            _allow(permissions.between_users(operation, pair.relation, facts), peer)
        return pair

    # --- groups ----------------------------------------------------------------------

    async def seat(self, caller: Caller, group_id: str, operation: GroupOperation, sent_at: int = 0) -> Seat:
        """The caller's standing in a group. Refused if that does not allow the operation. `sent_at` (Unix
        ms) is when the message was sent that is to be edited or recalled."""
        group = await self._directory.group(group_id)
        if group is None:
            raise RefusedError("not_found", f"no group {group_id}")
        seat = await self._seat(caller, group)
        facts = Facts(
            self.now_ms(),
            group=group,
            membership=seat.membership,
            sent_at=sent_at,
            recall_ms=self._limits.recall_ms,
            edit_ms=self._limits.edit_ms,
        )
        _allow(permissions.in_group(operation, seat.rank, facts), f"group {group_id}")
        return seat

    async def _seat(self, caller: Caller, group: Group) -> Seat:
        if caller.is_system:
            return Seat(group, None, Rank.SYSTEM)
        membership = await self._directory.membership(group.group_id, caller.user)
        banned = membership is None and bool(await self.banned(group.group_id, [caller.user]))
        return Seat(group, membership, permissions.rank(membership, banned))

    async def banned(self, group_id: str, users: Sequence[str]) -> list[str]:
        """Those of the given users who are banned from a group now."""
        bans = await self._directory.bans_by_id(group_id, users)
        now = self.now_ms()
        return [user for user in users if user in bans and (bans[user].until == 0 or bans[user].until > now)]

    @staticmethod
    def touch(seat: Seat, target: Membership | None, user: str) -> None:
        """Refuse unless the holder of the seat ranks high enough to act on a member (None: a user who
        is not a member)."""
        _allow(permissions.touches(seat.rank, permissions.rank(target)), user)

    # --- conversations ---------------------------------------------------------------

    async def room(self, caller: Caller, conversation_id: str) -> Room:
        """A conversation the caller may read.

        Raises:
            RefusedError: `invalid_params`, `not_found` (no such group), `not_member`, `not_authorized`.
        """
        group = group_of(conversation_id)
        users = participants(conversation_id) if group is None else (group,)
        if users is None or not all(map(is_id, users)):
            raise RefusedError("invalid_params", f"{conversation_id[:140]!r} is not a conversation id")
        if group is not None:
            seat = await self.seat(caller, group, GroupOperation.READ)
            return Room(conversation_id, seat, (), seat.floor, 0)
        if caller.is_system:
            return Room(conversation_id, None, users, 0, 0)
        if caller.user not in users:
            raise RefusedError("not_authorized", f"you are not part of {conversation_id}")
        peers = tuple(user for user in users if user != caller.user)
        (state,) = await self._conversations.states(caller.user, [conversation_id])
        ((floor, since),) = await self.begins(caller.user, [state])
        return Room(conversation_id, None, peers, floor, since)

    async def begins(self, user: str, states: Sequence[ConversationState]) -> list[tuple[int, int]]:
        """The `floor` and `since` of each of a user's private conversations: what is before them was said to
        an earlier account with the same id."""
        is_any_unknown = any(state.floor_seq is None for state in states)
        since = (await self.account(user)).created_at if is_any_unknown else 0
        floors = [state.floor_seq for state in states]
        return [(0, since) if floor is None else (floor, 0) for floor in floors]

    async def room_of(self, caller: Caller, message_id: str, conversation_id: str) -> Room:
        """The conversation of a message, if the caller may read it. Message ids can be guessed, so a
        refusal must not reveal which conversation the message belongs to."""
        try:
            return await self.room(caller, conversation_id)
        except RefusedError as refusal:
            raise RefusedError(refusal.code, f"message {message_id} is not for you to see") from None


def _allow(code: str | None, what: str) -> None:
    if code is not None:
        raise RefusedError(code, f"{what}: {permissions.in_words(code)}")

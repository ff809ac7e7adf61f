"""Access checks: collect the facts of a call from the directory, then ask `broker.domain.permissions`."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from bridge.core.ends import Ends
from bridge.core.operations import Caller
from broker.domain import permissions
from broker.domain.conversation import group_id, group_of, participants
from broker.domain.directory import Account, Contact, Group, Membership, Profile
from broker.domain.errors import RefusedError
from broker.domain.ids import is_id
from broker.domain.message import Body
from broker.domain.permissions import Facts, GroupOperation, Rank, Relation, UserOperation
from broker.domain.visibility import OPEN, Horizon, View, inbox_view
from broker.ports import Clock, ConversationStore, Directory


class MessageLimits(msgspec.Struct, frozen=True):
    """What the configuration says about messages."""

    recall_ms: int
    """How long after sending a message its sender may recall it."""
    edit_ms: int
    """How long after sending a message its sender may edit it."""
    group_receipts: int
    """The members of groups up to this size are told what others have read."""


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
    horizon: Horizon
    """The messages that are hidden from the caller."""

    def hides(self, seq: int, sent_at: int) -> bool:
        """Whether a message is hidden from the caller. See `Horizon.hides`."""
        return self.horizon.hides(self.conversation_id, seq, sent_at)


_AFTER_REMOVAL = frozenset((UserOperation.RECALL,))
"""Operations on a private message that stay possible after the other user's account was removed."""


class Access:
    """Checks what a caller may do. Methods raise `RefusedError` for a refusal and `StoreError` when the
    directory fails."""

    def __init__(
        self,
        directory: Directory,
        conversations: ConversationStore,
        clock: Clock,
        limits: MessageLimits,
        ends: Ends,
    ) -> None:
        self._directory = directory
        self._conversations = conversations
        self.now_ms = clock.now_ms
        self.growing_ms = clock.growing_ms
        self._limits = limits
        self.ends = ends

    def reload(self, limits: MessageLimits) -> None:
        """Change the limits."""
        self._limits = limits

    @property
    def group_receipts(self) -> int:
        """See `MessageLimits`."""
        return self._limits.group_receipts

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

    async def between(
        self, caller: Caller, peer: str, operation: UserOperation, message: Body | None = None
    ) -> Pair:
        """How the caller stands to another user. Refused if that does not allow the operation. `message`:
        the message to edit or recall."""
        pair = await self.pair(caller.user, peer, must_exist=operation not in _AFTER_REMOVAL)
        relation = Relation.SYSTEM if caller.is_system else pair.relation
        facts = replace(await self._facts(caller, message), profile=pair.profile)
        code = permissions.between_users(operation, relation, facts)
        if code == "not_authorized" and message is not None and not facts.is_sender:
            raise RefusedError(code, f"only the sender of a private message may {operation.value} it")
        _allow(code, _meant(code, peer, message))
        return pair

    @staticmethod
    def hears(pair: Pair) -> bool:
        """Whether the other user accepts messages from the one. A text that comes with something else, such
        as a request, is a message."""
        facts = Facts(profile=pair.profile)
        return permissions.between_users(UserOperation.MESSAGE, pair.relation, facts) is None

    async def each_lets(self, caller: Caller, users: Sequence[str], operation: UserOperation) -> None:
        """Refuse unless each of the given users permits the caller an operation on them."""
        profiles = await self.need_users(users)
        if caller.is_system:
            return
        contacts = await self._directory.contacts_between(permissions.both_ways(caller.user, users))
        for user in users:
            standing = permissions.relation(caller.user, user, contacts)
            _allow(permissions.between_users(operation, standing, Facts(profile=profiles[user])), user)

    async def those_letting(self, actor: str, users: Sequence[str], operation: UserOperation) -> set[str]:
        """Those of the given users who permit the actor an operation on them."""
        profiles = await self._directory.profiles(users)
        contacts = await self._directory.contacts_between(permissions.both_ways(actor, users))
        return {
            user
            for user, profile in profiles.items()
            if permissions.lets(profile, actor, operation, contacts)
        }

    async def those_let(self, caller: Caller, users: Sequence[str], operation: UserOperation) -> set[str]:
        """Those of the given users to whom the caller permits an operation on the caller."""
        profile = (await self._directory.profiles([caller.user])).get(caller.user)
        if caller.is_system or profile is None:
            return set(users)
        contacts = await self._directory.contacts_between(permissions.both_ways(caller.user, users))
        return {user for user in users if permissions.lets(profile, user, operation, contacts)}

    async def is_from(self, caller: Caller, message: Body) -> bool:
        """Whether the caller sent a message. What an earlier account with the same id sent is not theirs."""
        if message.from_user_id != caller.user or caller.is_system:
            return message.from_user_id == caller.user
        return message.seq > await self.own_floor(caller, message.conversation_id)

    async def own_floor(self, caller: Caller, conversation_id: str) -> int:
        """The seq up to which messages with the caller's id are those of an earlier account."""
        (state,) = await self._conversations.states(caller.user, [conversation_id])
        return state.floor_seq

    async def _facts(self, caller: Caller, message: Body | None) -> Facts:
        """What does not depend on where somebody stands."""
        facts = Facts(self.now_ms(), recall_ms=self._limits.recall_ms, edit_ms=self._limits.edit_ms)
        if message is None:
            return facts
        is_sender = await self.is_from(caller, message)
        return replace(facts, is_sender=is_sender, sent_at=message.created_at)

    # --- groups ----------------------------------------------------------------------

    async def seat(
        self, caller: Caller, group_id: str, operation: GroupOperation, message: Body | None = None
    ) -> Seat:
        """The caller's standing in a group. Refused if that does not allow the operation; `not_found` if the
        caller may not even know of the group, exactly as if there were none. `message`: the message to edit
        or recall."""
        group = await self._directory.group(group_id)
        if group is None:
            raise _no_group(group_id)
        seat = await self._seat(caller, group)
        facts = replace(await self._facts(caller, message), group=group, membership=seat.membership)
        code = permissions.in_group(operation, seat.rank, facts)
        if code == "not_found":
            raise _no_group(group_id)
        if code == "not_authorized" and operation is GroupOperation.EDIT:
            raise RefusedError(code, "only the sender of a message may edit it")
        _allow(code, _meant(code, f"group {group_id}", message))
        return seat

    async def knows(self, caller: Caller, group_id: str) -> bool:
        """Whether there is such a group, and the caller may know of it."""
        try:
            await self.seat(caller, group_id, GroupOperation.SEE)
        except RefusedError as refusal:
            return refusal.code != "not_found"
        return True

    async def _seat(self, caller: Caller, group: Group) -> Seat:
        if caller.is_system:
            return Seat(group, None, Rank.SYSTEM)
        membership = await self._directory.membership(group.group_id, caller.user)
        if membership is not None:
            return Seat(group, membership, permissions.rank(membership))
        is_banned = bool(await self.banned(group.group_id, [caller.user]))
        has_left = bool(await self._directory.who_left(group.group_id, [caller.user]))
        return Seat(group, None, permissions.rank(None, is_banned=is_banned, has_left=has_left))

    async def banned(self, group_id: str, users: Sequence[str]) -> list[str]:
        """Those of the given users who are banned from a group now."""
        bans = await self._directory.bans_by_id(group_id, users)
        now = self.now_ms()
        return [user for user in users if user in bans and (bans[user].until == 0 or bans[user].until > now)]

    async def may_come(self, caller: Caller, group_id: str, users: Sequence[str]) -> None:
        """Refuse (`has_left`) if one of the given users has left a group: they come back only by joining."""
        if caller.is_system:
            return
        left = await self._directory.who_left(group_id, users)
        for user in users:
            if user in left:
                raise RefusedError("has_left", f"{user} has left group {group_id}, and may ask to join it")

    @staticmethod
    def touch(seat: Seat, target: Membership | None, user: str) -> None:
        """Refuse unless the holder of the seat ranks high enough to act on a member (None: a user who
        is not a member)."""
        _allow(permissions.touches(seat.rank, permissions.rank(target)), user)

    # --- conversations ---------------------------------------------------------------

    async def room(self, caller: Caller, conversation_id: str) -> Room:
        """A conversation the caller may read.

        Raises:
            RefusedError: `invalid_params`, `not_found` (no group that the caller may know of), `not_member`,
                `not_authorized`.
        """
        group = group_of(conversation_id)
        users = participants(conversation_id) if group is None else (group,)
        if users is None or not all(map(is_id, users)):
            raise RefusedError("invalid_params", f"{conversation_id[:140]!r} is not a conversation id")
        if group is not None:
            seat = await self.seat(caller, group, GroupOperation.READ)
            return Room(conversation_id, seat, (), Horizon(seat.floor))
        peers = tuple(user for user in users if user != caller.user)
        if caller.is_system:
            return Room(conversation_id, None, peers, OPEN)
        if caller.user not in users:
            raise RefusedError("not_authorized", f"you are not part of {conversation_id}")
        _, view = await self.inbox(caller.user)
        return Room(conversation_id, None, peers, view.of(conversation_id))

    async def horizons(self, caller: Caller, conversation_ids: Iterable[str]) -> dict[str, Horizon]:
        """What is hidden from the caller in those of the conversations that they may read. This asks as
        `room` does, once for all."""
        wanted = frozenset(conversation_ids)
        if caller.is_system:
            return dict.fromkeys(wanted, OPEN)
        found: dict[str, Horizon] = {}
        if any(map(group_of, wanted)):
            for membership in await self._directory.memberships(caller.user):
                if permissions.may_read(membership):
                    found[group_id(membership.group_id)] = Horizon(membership.joined_seq)
        private = [name for name in wanted if caller.user in (participants(name) or ())]
        if private:
            _, view = await self.inbox(caller.user)
            found |= {name: view.of(name) for name in private}
        return {name: horizon for name, horizon in found.items() if name in wanted}

    async def inbox(self, user: str) -> tuple[int, View]:
        """The offset up to which a user's inbox belonged to earlier accounts with the same id, and which
        messages of private conversations are hidden because they were for those."""
        account = await self.account(user)
        if not account.inbox_floor:
            return 0, OPEN
        floors = await self._conversations.floors(user)
        return account.inbox_floor, inbox_view(floors, account.created_at)

    async def room_of(self, caller: Caller, message_id: str, message: Body) -> Room:
        """The conversation of a message, if the caller may read it. Message ids can be guessed, and tell
        when a message was sent. So only its sender is told why they may not read it any more; for everybody
        else there is no such message. `message_id`: as the caller gave it."""
        try:
            return await self.room(caller, message.conversation_id)
        except RefusedError as refusal:
            if refusal.code == "not_found" or not await self.is_from(caller, message):
                raise no_message(message_id) from None
            raise RefusedError(refusal.code, f"message {message_id} is not for you to see") from None


def no_message(message_id: str) -> RefusedError:
    """There is no such message, or the caller may not know of it."""
    return RefusedError("not_found", f"no message {message_id}")


def _no_group(group_id: str) -> RefusedError:
    return RefusedError("not_found", f"no group {group_id}")


def _meant(code: str | None, where: str, message: Body | None) -> str:
    """What a refusal is about: too late is a message, everything else where it is."""
    return f"message {message.id}" if code == "too_late" and message is not None else where


def _allow(code: str | None, what: str) -> None:
    if code is not None:
        raise RefusedError(code, f"{what}: {permissions.in_words(code)}")

"""Administration: what an operator does to a node, whichever way they ask.

Every method raises `DirectoryError` for what is refused (`not_found`, `exists`, `invalid`,
`is_owner`, `disabled`, or the code of a topic's rule) and `StoreError` when a store failed. The
directory itself refuses what only it can tell without a race: a user or group that is there
already, that is unknown, that owns the group.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from bridge.core.operations import THE_SYSTEM
from bridge.core.paging import page_of
from bridge.core.posting import stored
from bridge.core.tails import head, tail
from bridge.handlers.groups import CreateParameters, GroupParameters, Groups
from bridge.handlers.members import Members, UsersParameters
from broker.domain import conversation
from broker.domain.directory import SYSTEM
from broker.domain.ids import is_id
from broker.domain.message import Body, Entry
from broker.domain.topics import LOG_KINDS, Kind, Topic, inbox_topic, parse_topic, presence_topic
from broker.ports import (
    Account,
    BrokerPort,
    Device,
    Directory,
    DirectoryError,
    Forgotten,
    Group,
    Membership,
    MessageLog,
    Post,
    Retained,
    SaveChanges,
    Unseen,
)

T = TypeVar("T")

ROLES = ("user", "admin", "service")

MIN_PASSWORD = 4
"""Characters. Low on purpose: whether "demo" is good enough for a trial is the operator's to say,
and what protects a real account is the slow hash and the operator's own policy."""
MAX_PASSWORD = 1024
"""Characters; an MQTT password has up to 65,535 bytes, and hashing that much would only cost."""
MAX_NAME = 128
MAX_TTL = 366 * 86400
"""Seconds a token may live; whoever needs longer gives the account a password."""
MAX_MEMBERS_PER_CALL = 10_000
MAX_PAYLOAD = 256 * 1024

PAGE = 100
MAX_PAGE = 1000
HISTORY = 20
MAX_HISTORY = 100
HISTORY_BYTES = 1024 * 1024
"""About how much one answer of `history` holds, whatever the size of the messages."""

_TIMER_SECONDS = 0.01
"""By which a timer may be early."""

_END = 2**62
"""An offset behind every entry."""


class Administration:
    """The operations on accounts, groups and logs."""

    def __init__(
        self,
        directory: Directory,
        log: MessageLog,
        broker: BrokerPort,
        save: SaveChanges,
        now_ms: Callable[[], int],
        issue_token: Callable[[str, float], str],
        groups: Groups,
        members: Members,
    ) -> None:
        self._directory = directory
        self._log = log
        self._broker = broker
        self._save = save
        self._now_ms = now_ms
        self._issue_token = issue_token
        self._groups = groups
        self._members = members

    # --- accounts --------------------------------------------------------------------

    async def add_user(self, user_id: str, password: str | None, role: str = "user") -> Account:
        """Without a password, the user connects with tokens only."""
        _check_id("user", user_id)
        if password is not None:
            _check_password(password)
        if role not in ROLES:
            raise _invalid(f"{role!r} is not a role: {', '.join(ROLES)}")
        if user_id == SYSTEM:
            raise DirectoryError("exists", f"the id {SYSTEM} is the server's own")
        if await self._directory.account(user_id) is not None:
            raise DirectoryError("exists", f"user {user_id} exists already")
        # Somebody else may have had the id: what stands in the inbox is not for the new user, nor is
        # what was kept. That went with the account, unless the node ended in between.
        floor = await head(self._log, inbox_topic(user_id))
        presence = Retained(presence_topic(user_id), b"", 1)
        await self._save([Forgotten(user_id, None), Unseen(user_id), presence])
        return await self._directory.add_account(user_id, password, role, floor)

    async def set_password(self, user_id: str, password: str) -> None:
        """Replace a user's password."""
        _check_id("user", user_id)
        _check_password(password)
        await self._directory.set_password(user_id, password)

    async def users(self, after: str = "", limit: int = 0) -> tuple[list[Account], str]:
        """A page of users by id, and the `after` of the next page, "" if there is none.

        `limit` 0 means `PAGE`, at most `MAX_PAGE`; so it is with all pages."""
        limit = _page_limit(limit)
        accounts = await self._directory.accounts(after, limit + 1)
        return page_of(accounts, limit, lambda account: account.user_id)

    async def user(self, user_id: str) -> tuple[Account, list[Membership]]:
        """A user and the groups they are in."""
        account = await self._account(user_id)
        return account, await self._directory.memberships(user_id)

    async def set_user_disabled(self, user_id: str, disabled: bool) -> None:
        """A disabled user keeps everything and cannot connect."""
        _check_id("user", user_id)
        await self._directory.set_disabled(user_id, disabled)

    async def remove_user(self, user_id: str) -> None:
        """Remove an account and its memberships; its messages stay.

        Refused (`is_owner`) while the user owns a group, as on other platforms an owner cannot
        leave: a group that silently dissolves, or goes to whoever comes next, surprises all the
        others in it."""
        _, memberships = await self.user(user_id)
        groups = await self._directory.groups_by_id([member.group_id for member in memberships])
        owned = [
            member.group_id
            for member in memberships
            if member.role == "owner" and not groups[member.group_id].dismissed_at
        ]
        if owned:
            more = f" and {len(owned) - 5} more" if len(owned) > 5 else ""
            raise DirectoryError(
                "is_owner",
                f"user {user_id} owns {_count(len(owned), 'group')} ({', '.join(owned[:5])}{more}): "
                "dismiss first, or disable the user instead",
            )
        await self._members.remove_user(user_id)

    async def issue_token(self, user_id: str, ttl: int) -> str:
        """A token that stands for the user's password for `ttl` seconds, 1 to `MAX_TTL`."""
        if not 1 <= ttl <= MAX_TTL:
            raise _invalid(f"a token lives for 1 to {MAX_TTL} seconds, not {ttl}")
        account = await self._enabled_account(user_id)
        # One of a second whose tokens were revoked would be no good.
        if (early := account.tokens_after - self._now_ms() / 1000) > 0:
            await asyncio.sleep(min(early, 1.0) + _TIMER_SECONDS)
        return self._issue_token(user_id, float(ttl))

    async def revoke_tokens(self, user_id: str) -> None:
        """Accept no token of a user that was issued before; who is connected by one is disconnected."""
        await self._account(user_id)
        # Tokens carry whole seconds: those of this second are meant, too.
        await self._directory.revoke_tokens(user_id, self._now_ms() // 1000 + 1)

    async def _account(self, user_id: str) -> Account:
        _check_id("user", user_id)
        account = await self._directory.account(user_id)
        if account is None:
            raise DirectoryError("not_found", f"no user {user_id}")
        return account

    async def _enabled_account(self, user_id: str) -> Account:
        account = await self._account(user_id)
        if account.disabled:
            raise DirectoryError("disabled", f"user {user_id} is disabled")
        return account

    # --- connections -----------------------------------------------------------------

    async def sessions(self, user_id: str = "", after: str = "", limit: int = 0) -> tuple[list[Device], str]:
        """A page of the devices that are connected, of one user or ("") of all, by user and client id,
        and the `after` of the next page."""
        limit = _page_limit(limit)
        if user_id:
            await self._account(user_id)
        found = await self._broker.connections(user_id, after, limit + 1)
        return page_of(found, limit, lambda device: device.place)

    async def kick(self, user_id: str) -> int:
        """End all connections of a user, who may come back; returns how many there were."""
        await self._account(user_id)
        return await self._broker.kick(user_id)

    # --- groups ----------------------------------------------------------------------

    async def create_group(self, group_id: str, name: str, owner: str, members: Sequence[str]) -> Group:
        """The owner becomes a member too. An id may be used again after its group was dismissed:
        the new members do not see what the old ones wrote."""
        _check_id("group", group_id)
        _check_id("user", owner)
        users = _check_users(members)
        if len(name) > MAX_NAME:
            raise _invalid(f"a group's name has at most {MAX_NAME} characters, not {len(name)}")
        await self._groups.create_for(SYSTEM, owner, CreateParameters(group_id, name, users))
        return await self._group(group_id)

    async def add_group_members(self, group_id: str, users: Sequence[str]) -> int:
        """Returns how many were not members before. One unknown user refuses all."""
        _check_id("group", group_id)
        parameters = UsersParameters(group_id, _check_users(users, least=1))
        return len((await self._members.add(THE_SYSTEM, parameters)).user_ids)

    async def remove_group_members(self, group_id: str, users: Sequence[str]) -> int:
        """Returns how many were members before. The owner stays (`is_owner`)."""
        _check_id("group", group_id)
        parameters = UsersParameters(group_id, _check_users(users, least=1))
        return len((await self._members.remove(THE_SYSTEM, parameters)).user_ids)

    async def groups(self, after: str = "", limit: int = 0) -> tuple[list[Group], str]:
        """A page of groups by id, and the `after` of the next page."""
        limit = _page_limit(limit)
        groups = await self._directory.groups(after, limit + 1)
        return page_of(groups, limit, lambda group: group.group_id)

    async def group(
        self, group_id: str, after: str = "", limit: int = 0
    ) -> tuple[Group, list[Membership], str]:
        """A group, a page of its members by user id, and the `after` of the next page."""
        limit = _page_limit(limit)
        group = await self._group(group_id)
        members = await self._directory.members(group_id, after, limit + 1)
        return group, *page_of(members, limit, lambda membership: membership.user_id)

    async def dismiss_group(self, group_id: str) -> None:
        """End a group; its members can still read it."""
        _check_id("group", group_id)
        await self._groups.dismiss(THE_SYSTEM, GroupParameters(group_id))

    async def _group(self, group_id: str) -> Group:
        _check_id("group", group_id)
        group = await self._directory.group(group_id)
        if group is None:
            raise DirectoryError("not_found", f"no group {group_id}")
        return group

    # --- messages --------------------------------------------------------------------

    async def send(self, sender: str, topic: str, payload: bytes) -> Body:
        """Send as a user, to whom the rules of the topic apply as if they had published it."""
        await self._enabled_account(sender)
        _log_topic(topic)
        if len(payload) > MAX_PAYLOAD:
            raise DirectoryError(
                "invalid_payload", f"a payload has at most {MAX_PAYLOAD} bytes, not {len(payload)}"
            )
        (posted,) = await self._broker.publish(sender, [Post(topic, payload)])
        return stored(posted)

    async def tail(self, topic: str, after: int | None) -> AsyncIterator[bytes]:
        """The entries of an inbox or group topic as delivered JSON: those after offset `after`,
        and new ones. None: those stored after this method has returned."""
        parsed = _log_topic(topic)
        if after is not None and after < 0:
            raise _invalid(f"an offset is not negative: {after}")
        last = await head(self._log, topic)
        if last == 0:  # nobody has written: perhaps there is nobody to write to
            await (self._group if parsed.kind is Kind.GROUP else self._account)(parsed.owner)
        return tail(self._log, self._broker, topic, last if after is None else after)

    async def history(self, conversation_id: str, before_seq: int = 0, limit: int = 0) -> list[bytes]:
        """Messages before `before_seq` (0: the last ones) as JSON without `offset`, ascending.

        At most `limit` (0: `HISTORY`, at most `MAX_HISTORY`), and of about `HISTORY_BYTES` but at
        least one if there is one. What was written in a group that is dismissed, or by users that
        are removed, can still be read."""
        if before_seq < 0:
            raise _invalid(f"a seq is not negative: {before_seq}")
        limit = _limit(limit, HISTORY, MAX_HISTORY)
        log = _conversation_log(conversation_id)
        entries = await self._log.read_back(log, before_seq or _END, limit, HISTORY_BYTES)
        if not entries and not before_seq:
            await self._need_parties(log)
        return _newest(entries, HISTORY_BYTES)

    async def _need_parties(self, conversation_id: str) -> None:
        group = conversation.group_of(conversation_id)
        if group is not None:
            await self._group(group)
        for user in conversation.participants(conversation_id) or ():
            await self._account(user)

    async def stats(self) -> dict[str, int]:
        """Counters and gauges of the node, by name."""
        return dict(sorted((await self._broker.stats()).items()))


def _invalid(detail: str) -> DirectoryError:
    return DirectoryError("invalid", detail)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _check_id(kind: str, text: str) -> None:
    if not is_id(text):
        shown = repr(text if len(text) <= 80 else text[:80] + "…")
        raise _invalid(f"{shown} is not a {kind} id: 1 to 64 of A-Z a-z 0-9 _ . -")


def _check_users(users: Sequence[str], least: int = 0) -> list[str]:
    """The users without repetitions, in their order."""
    if not least <= len(users) <= MAX_MEMBERS_PER_CALL:
        raise _invalid(f"name {least} to {MAX_MEMBERS_PER_CALL} users at a time, not {len(users)}")
    for user in users:
        _check_id("user", user)
    return list(dict.fromkeys(users))


def _check_password(password: str) -> None:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise _invalid(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, not {len(password)}")


def _limit(limit: int, default: int, most: int) -> int:
    if not 0 <= limit <= most:
        raise _invalid(f"limit is 1 to {most}, not {limit}")
    return limit or default


def _page_limit(limit: int) -> int:
    return _limit(limit, PAGE, MAX_PAGE)


def _log_topic(topic: str) -> Topic:
    parsed = parse_topic(topic)
    if parsed.kind not in LOG_KINDS:
        raise _invalid(f"{topic[:200]!r} is not an inbox or group topic: users/<id>/inbox or groups/<id>")
    return parsed


def _conversation_log(conversation_id: str) -> str:
    """The log of a conversation; a private one may name its users in either order."""
    match conversation_id.split(":"):
        case ["p", one, other] if is_id(one) and is_id(other):
            return conversation.private_id(one, other)
        case ["g", group] if is_id(group):
            return conversation_id
    raise _invalid(f"{conversation_id[:200]!r} is not a conversation: p:<user>:<user> or g:<group>")


def _newest(entries: list[Entry], max_bytes: int) -> list[bytes]:
    """The bodies of the last entries that come to at most `max_bytes`, but at least one."""
    size = 0
    first = len(entries)
    while first > 0:
        size += len(entries[first - 1].body)
        if size > max_bytes and first < len(entries):
            break
        first -= 1
    return [entry.body for entry in entries[first:]]

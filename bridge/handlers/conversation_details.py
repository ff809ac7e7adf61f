"""What an app shows of a conversation besides its messages: with whom it is, how far they have read, and
whether the user is mentioned. It is looked up for many conversations at once."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from broker.domain import permissions
from broker.domain.conversation import group_of, other_of, participants
from broker.domain.directory import Contact, Group, Profile
from broker.domain.permissions import UserOperation
from broker.ports import ConversationStore, Directory, Watermark

_NOT_SEEN = Watermark("", 0, 0)


class Peer(msgspec.Struct):
    """The other user of a private conversation; the caller in a conversation with oneself."""

    user_id: str
    name: str
    """The name to show; empty if the user has none, or does not exist any more."""
    avatar: str
    """A URL."""
    remark: str
    """The caller's own name for the user."""


class GroupName(msgspec.Struct):
    """The group of a conversation."""

    group_id: str
    name: str
    avatar: str
    """A URL."""


class Details(msgspec.Struct, frozen=True):
    """See the fields of `conversations.ConversationView`."""

    peer: Peer | None = None
    group: GroupName | None = None
    peer_read_seq: int = 0
    peer_delivered_seq: int = 0
    mentioned_seq: int | None = None


class ConversationDetails:
    """Looks details up: five queries, however many conversations."""

    def __init__(self, store: ConversationStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def of(self, user: str, conversations: Sequence[str], unread: Mapping[str, int]) -> list[Details]:
        """The details of conversations for a user, in their order. `unread`: conversation with unread
        messages -> the seq up to which its messages count as seen. Raises `StoreError`."""
        peers = {name: other_of(name, user) for name in conversations if participants(name)}
        groups = {name: group for name in conversations if (group := group_of(name)) is not None}
        profiles = await self._directory.profiles(list(peers.values()))
        contacts = await self._directory.contacts_between(permissions.both_ways(user, peers.values()))
        marks = await self._store.watermarks_of(peers)
        known = await self._directory.groups_by_id(list(groups.values()))
        mentions = await self._store.mentions(user, unread) if unread else {}
        found = []
        for name in conversations:
            if name in peers:
                peer = peers[name]
                details = _private(user, peer, profiles.get(peer), contacts, marks.get(name, _NOT_SEEN))
            else:
                details = Details(group=_group_name(groups[name], known.get(groups[name])))
            found.append(replace(details, mentioned_seq=mentions.get(name)))
        return found


def _private(
    user: str,
    peer: str,
    profile: Profile | None,
    contacts: Mapping[tuple[str, str], Contact],
    mark: Watermark,
) -> Details:
    contact = contacts.get((user, peer))
    remark = contact.remark if contact else ""
    if profile is None:
        return Details(Peer(peer, "", "", remark))
    return Details(
        Peer(peer, profile.name, profile.avatar, remark),
        # As for the events: who is not told of receipts does not find them here either.
        peer_read_seq=mark.read if permissions.lets(profile, user, UserOperation.SEE_READ, contacts) else 0,
        peer_delivered_seq=mark.delivered
        if permissions.lets(profile, user, UserOperation.SEE_DELIVERED, contacts)
        else 0,
    )


def _group_name(group_id: str, group: Group | None) -> GroupName:
    return GroupName(group_id, group.name, group.avatar) if group else GroupName(group_id, "", "")

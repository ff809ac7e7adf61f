"""Checks the references of a message: `reply_to` and `mentions`."""

from collections.abc import Sequence

from broker.domain import conversation, permissions
from broker.domain.errors import ReasonCode, Refusal
from broker.domain.message import Content, read_body
from broker.domain.permissions import Facts, UserOperation
from broker.domain.topics import Kind, Topic
from broker.domain.visibility import inbox_view
from broker.ports import ConversationStore, Directory, MessageLog

_ID_DIGITS = len(str(1 << 63))
"""Message ids have 63 bits."""


class References:
    """Looks references up in the log and the directory, before the message is stored."""

    def __init__(self, log: MessageLog, conversations: ConversationStore, directory: Directory) -> None:
        self._log = log
        self._conversations = conversations
        self._directory = directory

    async def check(self, user: str, topic: Topic, content: Content) -> Refusal | None:
        """None if `reply_to` is a message of the same conversation that `user` may read, and all `mentions`
        are users in the conversation whom `user` may mention. Raises `StoreError`."""
        is_group = topic.kind is Kind.GROUP
        where = conversation.group_id(topic.owner) if is_group else conversation.private_id(user, topic.owner)
        if content.reply_to is not None and not await self._is_in(where, user, topic, content.reply_to):
            return _refusal(f"reply_to: no message {content.reply_to:.{_ID_DIGITS}} in {where}")
        mentions = content.mentions
        if not is_group:
            users = mentions if isinstance(mentions, list) else []
            strangers = [name for name in users if name not in (user, topic.owner)]
            if strangers or mentions == "all":
                return _refusal(f"mentions: {strangers[0] if strangers else 'all'} is not in {where}")
        elif isinstance(mentions, list):
            return await self._check_mentions(user, topic.owner, mentions)
        return None

    async def _check_mentions(self, user: str, group: str, mentions: Sequence[str]) -> Refusal | None:
        members = await self._directory.members_by_id(group, mentions)
        for name in mentions:
            if name not in members:
                return _refusal(f"mentions: {name} is not a member of group {group}")
        contacts = await self._directory.contacts_between(permissions.both_ways(user, mentions))
        for name in mentions:
            relation = permissions.relation(user, name, contacts)
            code = permissions.between_users(UserOperation.MENTION, relation, Facts())
            if code is not None:
                detail = f"mentions: {name}: {permissions.in_words(code)}"
                return Refusal(code, ReasonCode.NOT_AUTHORIZED, detail)
        return None

    async def _is_in(self, where: str, user: str, topic: Topic, reply_to: str) -> bool:
        # A client may send a number of any length, and Python does not convert very long ones.
        if len(reply_to) > _ID_DIGITS or (message_id := int(reply_to)) >= 1 << 63:
            return False
        located = (await self._log.locate([message_id])).get(message_id)
        if located is None or located.conversation_id != where:
            return False
        if topic.kind is not Kind.GROUP:
            account = await self._directory.account(user)
            if account is None or not account.inbox_floor:
                return True
            # Some messages may be those of an earlier account with the same id.
            view = inbox_view(await self._conversations.floors(user), account.created_at)
            return not view.hides(where, located.seq, read_body(located.body).created_at)
        membership = await self._directory.membership(topic.owner, user)
        return membership is None or located.seq > membership.joined_seq


def _refusal(detail: str) -> Refusal:
    return Refusal("not_found", ReasonCode.PAYLOAD_FORMAT_INVALID, detail)

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Done(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("user_id", "group_id", "type", "content", "client_msg_id", "reply_to", "mentions", "data", "traceparent")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_MSG_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    MENTIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    group_id: str
    type: str
    content: bytes
    client_msg_id: str
    reply_to: str
    mentions: bytes
    data: bytes
    traceparent: str
    def __init__(self, user_id: _Optional[str] = ..., group_id: _Optional[str] = ..., type: _Optional[str] = ..., content: _Optional[bytes] = ..., client_msg_id: _Optional[str] = ..., reply_to: _Optional[str] = ..., mentions: _Optional[bytes] = ..., data: _Optional[bytes] = ..., traceparent: _Optional[str] = ...) -> None: ...

class SentMessage(_message.Message):
    __slots__ = ("id", "conversation_id", "seq", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    conversation_id: str
    seq: int
    created_at: int
    def __init__(self, id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., seq: _Optional[int] = ..., created_at: _Optional[int] = ...) -> None: ...

class SendBatchRequest(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[SendRequest]
    def __init__(self, messages: _Optional[_Iterable[_Union[SendRequest, _Mapping]]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "detail")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("sent", "error")
    SENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sent: SentMessage
    error: Failure
    def __init__(self, sent: _Optional[_Union[SentMessage, _Mapping]] = ..., error: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class SendBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchItem]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchItem, _Mapping]]] = ...) -> None: ...

class SyncRequest(_message.Message):
    __slots__ = ("cursors", "follow", "all_logs", "generation")
    class CursorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    ALL_LOGS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    cursors: _containers.ScalarMap[str, int]
    follow: bool
    all_logs: bool
    generation: int
    def __init__(self, cursors: _Optional[_Mapping[str, int]] = ..., follow: _Optional[bool] = ..., all_logs: _Optional[bool] = ..., generation: _Optional[int] = ...) -> None: ...

class SyncedEntry(_message.Message):
    __slots__ = ("topic", "offset", "json", "generation")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    topic: str
    offset: int
    json: bytes
    generation: int
    def __init__(self, topic: _Optional[str] = ..., offset: _Optional[int] = ..., json: _Optional[bytes] = ..., generation: _Optional[int] = ...) -> None: ...

class GetMessagesRequest(_message.Message):
    __slots__ = ("conversation_id", "before_seq", "after_seq", "limit", "around_seq", "before_id", "after_id", "around_id", "generation")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_SEQ_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AROUND_SEQ_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    AROUND_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    before_seq: int
    after_seq: int
    limit: int
    around_seq: int
    before_id: str
    after_id: str
    around_id: str
    generation: int
    def __init__(self, conversation_id: _Optional[str] = ..., before_seq: _Optional[int] = ..., after_seq: _Optional[int] = ..., limit: _Optional[int] = ..., around_seq: _Optional[int] = ..., before_id: _Optional[str] = ..., after_id: _Optional[str] = ..., around_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class GetMessagesResponse(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, messages: _Optional[_Iterable[bytes]] = ...) -> None: ...

class MessageIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetMessagesByIdResponse(_message.Message):
    __slots__ = ("messages", "missing", "rest")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    missing: _containers.RepeatedScalarFieldContainer[str]
    rest: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, messages: _Optional[_Iterable[bytes]] = ..., missing: _Optional[_Iterable[str]] = ..., rest: _Optional[_Iterable[str]] = ...) -> None: ...

class UptoRequest(_message.Message):
    __slots__ = ("conversation_id", "seq", "generation")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    seq: int
    generation: int
    def __init__(self, conversation_id: _Optional[str] = ..., seq: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class ReadersRequest(_message.Message):
    __slots__ = ("id", "after", "limit")
    ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    id: str
    after: str
    limit: int
    def __init__(self, id: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Reader(_message.Message):
    __slots__ = ("user_id", "read_seq")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    READ_SEQ_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    read_seq: int
    def __init__(self, user_id: _Optional[str] = ..., read_seq: _Optional[int] = ...) -> None: ...

class ReadersResponse(_message.Message):
    __slots__ = ("readers", "next")
    READERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    readers: _containers.RepeatedCompositeFieldContainer[Reader]
    next: str
    def __init__(self, readers: _Optional[_Iterable[_Union[Reader, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class ReadCountsRequest(_message.Message):
    __slots__ = ("conversation_id", "ids")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, conversation_id: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ReadCountsResponse(_message.Message):
    __slots__ = ("counts", "missing")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.ScalarMap[str, int]
    missing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, counts: _Optional[_Mapping[str, int]] = ..., missing: _Optional[_Iterable[str]] = ...) -> None: ...

class EditRequest(_message.Message):
    __slots__ = ("id", "content")
    ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    content: bytes
    def __init__(self, id: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class RecallRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class AmendedMessage(_message.Message):
    __slots__ = ("entry",)
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    entry: bytes
    def __init__(self, entry: _Optional[bytes] = ...) -> None: ...

class ListConversationsRequest(_message.Message):
    __slots__ = ("since", "limit", "cursor", "include_hidden", "generation")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HIDDEN_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    since: int
    limit: int
    cursor: str
    include_hidden: bool
    generation: int
    def __init__(self, since: _Optional[int] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., include_hidden: _Optional[bool] = ..., generation: _Optional[int] = ...) -> None: ...

class Conversation(_message.Message):
    __slots__ = ("conversation_id", "conversation_type", "head_seq", "read_seq", "unread", "pinned", "muted", "hidden", "marked_unread", "active_at", "last_message", "peer", "group", "peer_read_seq", "peer_delivered_seq", "mentioned_seq")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_TYPE_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQ_FIELD_NUMBER: _ClassVar[int]
    READ_SEQ_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    MUTED_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    MARKED_UNREAD_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PEER_READ_SEQ_FIELD_NUMBER: _ClassVar[int]
    PEER_DELIVERED_SEQ_FIELD_NUMBER: _ClassVar[int]
    MENTIONED_SEQ_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    conversation_type: str
    head_seq: int
    read_seq: int
    unread: int
    pinned: bool
    muted: bool
    hidden: bool
    marked_unread: bool
    active_at: int
    last_message: bytes
    peer: Peer
    group: GroupName
    peer_read_seq: int
    peer_delivered_seq: int
    mentioned_seq: int
    def __init__(self, conversation_id: _Optional[str] = ..., conversation_type: _Optional[str] = ..., head_seq: _Optional[int] = ..., read_seq: _Optional[int] = ..., unread: _Optional[int] = ..., pinned: _Optional[bool] = ..., muted: _Optional[bool] = ..., hidden: _Optional[bool] = ..., marked_unread: _Optional[bool] = ..., active_at: _Optional[int] = ..., last_message: _Optional[bytes] = ..., peer: _Optional[_Union[Peer, _Mapping]] = ..., group: _Optional[_Union[GroupName, _Mapping]] = ..., peer_read_seq: _Optional[int] = ..., peer_delivered_seq: _Optional[int] = ..., mentioned_seq: _Optional[int] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("user_id", "name", "avatar", "remark")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    name: str
    avatar: str
    remark: str
    def __init__(self, user_id: _Optional[str] = ..., name: _Optional[str] = ..., avatar: _Optional[str] = ..., remark: _Optional[str] = ...) -> None: ...

class GroupName(_message.Message):
    __slots__ = ("group_id", "name", "avatar")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    avatar: str
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ..., avatar: _Optional[str] = ...) -> None: ...

class ListConversationsResponse(_message.Message):
    __slots__ = ("conversations", "next", "since", "unread_total", "cursors", "generation")
    class CursorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CONVERSATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNREAD_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    conversations: _containers.RepeatedCompositeFieldContainer[Conversation]
    next: str
    since: int
    unread_total: int
    cursors: _containers.ScalarMap[str, int]
    generation: int
    def __init__(self, conversations: _Optional[_Iterable[_Union[Conversation, _Mapping]]] = ..., next: _Optional[str] = ..., since: _Optional[int] = ..., unread_total: _Optional[int] = ..., cursors: _Optional[_Mapping[str, int]] = ..., generation: _Optional[int] = ...) -> None: ...

class SetConversationRequest(_message.Message):
    __slots__ = ("conversation_id", "pinned", "muted", "hidden", "marked_unread")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    MUTED_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    MARKED_UNREAD_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    pinned: bool
    muted: bool
    hidden: bool
    marked_unread: bool
    def __init__(self, conversation_id: _Optional[str] = ..., pinned: _Optional[bool] = ..., muted: _Optional[bool] = ..., hidden: _Optional[bool] = ..., marked_unread: _Optional[bool] = ...) -> None: ...

class ListContactsRequest(_message.Message):
    __slots__ = ("state", "after", "limit")
    STATE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    state: str
    after: str
    limit: int
    def __init__(self, state: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Contact(_message.Message):
    __slots__ = ("user_id", "state", "blocked", "remark", "note", "name", "avatar", "updated_at")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    state: str
    blocked: bool
    remark: str
    note: str
    name: str
    avatar: str
    updated_at: int
    def __init__(self, user_id: _Optional[str] = ..., state: _Optional[str] = ..., blocked: _Optional[bool] = ..., remark: _Optional[str] = ..., note: _Optional[str] = ..., name: _Optional[str] = ..., avatar: _Optional[str] = ..., updated_at: _Optional[int] = ...) -> None: ...

class ListContactsResponse(_message.Message):
    __slots__ = ("contacts", "next")
    CONTACTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    contacts: _containers.RepeatedCompositeFieldContainer[Contact]
    next: str
    def __init__(self, contacts: _Optional[_Iterable[_Union[Contact, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class PeerRequest(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class ContactRequest(_message.Message):
    __slots__ = ("user_id", "note")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    note: str
    def __init__(self, user_id: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class RemarkRequest(_message.Message):
    __slots__ = ("user_id", "remark")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    remark: str
    def __init__(self, user_id: _Optional[str] = ..., remark: _Optional[str] = ...) -> None: ...

class GetUsersRequest(_message.Message):
    __slots__ = ("user_ids",)
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Privacy(_message.Message):
    __slots__ = ("who_may_message", "who_sees_presence", "read_receipts", "who_may_add_me")
    WHO_MAY_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WHO_SEES_PRESENCE_FIELD_NUMBER: _ClassVar[int]
    READ_RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_ADD_ME_FIELD_NUMBER: _ClassVar[int]
    who_may_message: str
    who_sees_presence: str
    read_receipts: bool
    who_may_add_me: str
    def __init__(self, who_may_message: _Optional[str] = ..., who_sees_presence: _Optional[str] = ..., read_receipts: _Optional[bool] = ..., who_may_add_me: _Optional[str] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("user_id", "name", "avatar", "privacy")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    name: str
    avatar: str
    privacy: Privacy
    def __init__(self, user_id: _Optional[str] = ..., name: _Optional[str] = ..., avatar: _Optional[str] = ..., privacy: _Optional[_Union[Privacy, _Mapping]] = ...) -> None: ...

class GetUsersResponse(_message.Message):
    __slots__ = ("users",)
    USERS_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[Profile]
    def __init__(self, users: _Optional[_Iterable[_Union[Profile, _Mapping]]] = ...) -> None: ...

class UpdateUserRequest(_message.Message):
    __slots__ = ("name", "avatar", "who_may_message", "who_sees_presence", "read_receipts", "who_may_add_me")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WHO_SEES_PRESENCE_FIELD_NUMBER: _ClassVar[int]
    READ_RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_ADD_ME_FIELD_NUMBER: _ClassVar[int]
    name: str
    avatar: str
    who_may_message: str
    who_sees_presence: str
    read_receipts: bool
    who_may_add_me: str
    def __init__(self, name: _Optional[str] = ..., avatar: _Optional[str] = ..., who_may_message: _Optional[str] = ..., who_sees_presence: _Optional[str] = ..., read_receipts: _Optional[bool] = ..., who_may_add_me: _Optional[str] = ...) -> None: ...

class GetPresenceRequest(_message.Message):
    __slots__ = ("user_ids",)
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Presence(_message.Message):
    __slots__ = ("user_id", "status", "last_seen", "devices")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    status: str
    last_seen: int
    devices: int
    def __init__(self, user_id: _Optional[str] = ..., status: _Optional[str] = ..., last_seen: _Optional[int] = ..., devices: _Optional[int] = ...) -> None: ...

class GetPresenceResponse(_message.Message):
    __slots__ = ("presences",)
    PRESENCES_FIELD_NUMBER: _ClassVar[int]
    presences: _containers.RepeatedCompositeFieldContainer[Presence]
    def __init__(self, presences: _Optional[_Iterable[_Union[Presence, _Mapping]]] = ...) -> None: ...

class PushRequest(_message.Message):
    __slots__ = ("user_ids", "payload")
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    payload: bytes
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class PushResponse(_message.Message):
    __slots__ = ("reached", "missed")
    REACHED_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    reached: _containers.RepeatedScalarFieldContainer[str]
    missed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reached: _Optional[_Iterable[str]] = ..., missed: _Optional[_Iterable[str]] = ...) -> None: ...

class NewGroupRequest(_message.Message):
    __slots__ = ("group_id", "name", "members", "avatar", "announcement", "who_may_invite", "who_may_post", "join", "history_visible")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_INVITE_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_POST_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    HISTORY_VISIBLE_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    members: _containers.RepeatedScalarFieldContainer[str]
    avatar: str
    announcement: str
    who_may_invite: str
    who_may_post: str
    join: str
    history_visible: bool
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ..., members: _Optional[_Iterable[str]] = ..., avatar: _Optional[str] = ..., announcement: _Optional[str] = ..., who_may_invite: _Optional[str] = ..., who_may_post: _Optional[str] = ..., join: _Optional[str] = ..., history_visible: _Optional[bool] = ...) -> None: ...

class GroupInfo(_message.Message):
    __slots__ = ("group_id", "name", "avatar", "announcement", "owner", "members", "role", "muted_until", "who_may_invite", "who_may_post", "join", "history_visible", "dismissed_at", "created_at")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MUTED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_INVITE_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_POST_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    HISTORY_VISIBLE_FIELD_NUMBER: _ClassVar[int]
    DISMISSED_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    avatar: str
    announcement: str
    owner: str
    members: int
    role: str
    muted_until: int
    who_may_invite: str
    who_may_post: str
    join: str
    history_visible: bool
    dismissed_at: int
    created_at: int
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ..., avatar: _Optional[str] = ..., announcement: _Optional[str] = ..., owner: _Optional[str] = ..., members: _Optional[int] = ..., role: _Optional[str] = ..., muted_until: _Optional[int] = ..., who_may_invite: _Optional[str] = ..., who_may_post: _Optional[str] = ..., join: _Optional[str] = ..., history_visible: _Optional[bool] = ..., dismissed_at: _Optional[int] = ..., created_at: _Optional[int] = ...) -> None: ...

class GroupRequest(_message.Message):
    __slots__ = ("group_id",)
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    def __init__(self, group_id: _Optional[str] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GroupsResponse(_message.Message):
    __slots__ = ("groups", "next")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupInfo]
    next: str
    def __init__(self, groups: _Optional[_Iterable[_Union[GroupInfo, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class UpdateGroupRequest(_message.Message):
    __slots__ = ("group_id", "name", "avatar", "announcement", "who_may_invite", "who_may_post", "join", "history_visible")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVATAR_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_INVITE_FIELD_NUMBER: _ClassVar[int]
    WHO_MAY_POST_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    HISTORY_VISIBLE_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    avatar: str
    announcement: str
    who_may_invite: str
    who_may_post: str
    join: str
    history_visible: bool
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ..., avatar: _Optional[str] = ..., announcement: _Optional[str] = ..., who_may_invite: _Optional[str] = ..., who_may_post: _Optional[str] = ..., join: _Optional[str] = ..., history_visible: _Optional[bool] = ...) -> None: ...

class MemberRequest(_message.Message):
    __slots__ = ("group_id", "user_id")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    user_id: str
    def __init__(self, group_id: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class RoleRequest(_message.Message):
    __slots__ = ("group_id", "user_id", "role")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    user_id: str
    role: str
    def __init__(self, group_id: _Optional[str] = ..., user_id: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class MuteRequest(_message.Message):
    __slots__ = ("group_id", "user_id", "until")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    user_id: str
    until: int
    def __init__(self, group_id: _Optional[str] = ..., user_id: _Optional[str] = ..., until: _Optional[int] = ...) -> None: ...

class MembersPageRequest(_message.Message):
    __slots__ = ("group_id", "after", "limit")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    after: str
    limit: int
    def __init__(self, group_id: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("user_id", "role", "joined_seq", "muted_until")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    JOINED_SEQ_FIELD_NUMBER: _ClassVar[int]
    MUTED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    role: str
    joined_seq: int
    muted_until: int
    def __init__(self, user_id: _Optional[str] = ..., role: _Optional[str] = ..., joined_seq: _Optional[int] = ..., muted_until: _Optional[int] = ...) -> None: ...

class MembersResponse(_message.Message):
    __slots__ = ("members", "next")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Member]
    next: str
    def __init__(self, members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class MembersRequest(_message.Message):
    __slots__ = ("group_id", "user_ids")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group_id: _Optional[str] = ..., user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ChangedMembers(_message.Message):
    __slots__ = ("user_ids",)
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BanRequest(_message.Message):
    __slots__ = ("group_id", "user_id", "until")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    user_id: str
    until: int
    def __init__(self, group_id: _Optional[str] = ..., user_id: _Optional[str] = ..., until: _Optional[int] = ...) -> None: ...

class Ban(_message.Message):
    __slots__ = ("user_id", "until")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    until: int
    def __init__(self, user_id: _Optional[str] = ..., until: _Optional[int] = ...) -> None: ...

class BansResponse(_message.Message):
    __slots__ = ("bans", "next")
    BANS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    bans: _containers.RepeatedCompositeFieldContainer[Ban]
    next: str
    def __init__(self, bans: _Optional[_Iterable[_Union[Ban, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("group_id", "note")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    note: str
    def __init__(self, group_id: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...

class PendingRequest(_message.Message):
    __slots__ = ("user_id", "note", "created_at")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    note: str
    created_at: int
    def __init__(self, user_id: _Optional[str] = ..., note: _Optional[str] = ..., created_at: _Optional[int] = ...) -> None: ...

class JoinRequestsResponse(_message.Message):
    __slots__ = ("requests", "next")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[PendingRequest]
    next: str
    def __init__(self, requests: _Optional[_Iterable[_Union[PendingRequest, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[StatusDetail]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[StatusDetail, _Mapping]]] = ...) -> None: ...

class StatusDetail(_message.Message):
    __slots__ = ("type_url", "value")
    TYPE_URL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type_url: str
    value: ErrorInfo
    def __init__(self, type_url: _Optional[str] = ..., value: _Optional[_Union[ErrorInfo, _Mapping]] = ...) -> None: ...

class ErrorInfo(_message.Message):
    __slots__ = ("reason", "domain", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    reason: str
    domain: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, reason: _Optional[str] = ..., domain: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

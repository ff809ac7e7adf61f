"""The refusals of each operation that do not follow from its types, with their codes."""

from typing import Any

MOST_MEMBERS = 8
NOBODY, NOTHING = "nobody-here", "no-such-group"

Row = tuple[str, dict[str, Any], str]
"""The caller, the parameters, the code. `{…}` stands for a value that `world` made."""


def _of_groups(**more: Any) -> list[Row]:
    """The refusals of every operation for members."""
    return [
        ("me", {"group_id": NOTHING} | more, "not_found"),
        ("me", {"group_id": "{closed}"} | more, "not_found"),
        ("me", {"group_id": "{banned}"} | more, "not_member"),
    ]


def _of_admins(**more: Any) -> list[Row]:
    """The refusals of every operation for admins of a group that is not dismissed."""
    return [
        *_of_groups(**more),
        ("me", {"group_id": "{joined}"} | more, "not_authorized"),
        ("me", {"group_id": "{ended}"} | more, "dismissed"),
    ]


def _of_owners(**more: Any) -> list[Row]:
    return [*_of_admins(**more), ("peer", {"group_id": "{joined}"} | more, "not_authorized")]


def _of_peers(**more: Any) -> list[Row]:
    return [
        ("me", {"user_id": NOBODY} | more, "not_found"),
        ("me", {"user_id": "system"} | more, "not_found"),
        ("me", {"user_id": "{me}"} | more, "invalid_params"),
    ]


def _of_conversations(**more: Any) -> list[Row]:
    wrong = (
        "nonsense",
        "p:b:a",
        "p:{me}",
        "p::{me}",
        "p:{me}:",
        "p:{me}:z z",
        "x:{me}:{me}",
        "p:{me}:{me}:z",
    )
    return [
        *(("me", {"conversation_id": each} | more, "invalid_params") for each in wrong),
        ("me", {"conversation_id": "g:"} | more, "invalid_params"),
        ("me", {"conversation_id": "g:a/b"} | more, "invalid_params"),
        ("me", {"conversation_id": f"g:{NOTHING}"} | more, "not_found"),
        ("me", {"conversation_id": "g:{closed}"} | more, "not_found"),
        ("me", {"conversation_id": "{of_others}"} | more, "not_authorized"),
    ]


def _of_messages(system: str, **more: Any) -> list[Row]:
    return [
        ("me", {"id": "0"} | more, "not_found"),
        ("me", {"id": "8999999999999999999"} | more, "not_found"),
        ("me", {"id": "{from_peer}"} | more, "not_authorized"),
        ("me", {"id": "{between_others}"} | more, "not_found"),
        ("third", {"id": "{in_own}"} | more, "not_found"),
        ("other", {"id": "{in_own}"} | more, "not_found"),
        ("me", {"id": "{in_closed}"} | more, "not_found"),
        ("me", {"id": "{in_joined}"} | more, "not_authorized"),
        ("me", {"id": "{system_entry}"} | more, system),
    ]


SENDING: list[Row] = [
    ("me", {"content": "x"}, "invalid_params"),
    ("me", {"content": "x", "user_id": "{peer}", "group_id": "{own}"}, "invalid_params"),
    ("me", {"content": "x", "user_id": NOBODY}, "not_found"),
    ("me", {"content": "x", "user_id": "{blocker}"}, "blocked"),
    ("me", {"content": "x", "user_id": "{shy}"}, "not_contact"),
    ("me", {"content": "x", "group_id": NOTHING}, "not_member"),
    ("me", {"content": "x", "group_id": "{closed}"}, "not_member"),
    ("me", {"content": "x", "group_id": "{banned}"}, "not_member"),
    ("me", {"content": "x", "group_id": "{ended}"}, "dismissed"),
    ("me", {"content": "x", "group_id": "{quiet}"}, "muted"),
    ("me", {"content": "x", "user_id": "{peer}", "type": "system"}, "invalid_payload"),
    ("me", {"content": "x", "user_id": "{peer}", "type": "recall"}, "invalid_payload"),
    ("me", {"content": "x", "user_id": "{peer}", "data": {"x": "y" * 5000}}, "invalid_payload"),
    ("me", {"content": "x", "user_id": "{peer}", "traceparent": "00-x"}, "invalid_payload"),
    ("me", {"content": "x", "user_id": "{peer}", "reply_to": "1"}, "not_found"),
    ("me", {"content": "x", "user_id": "{peer}", "reply_to": "{in_joined}"}, "not_found"),
    ("me", {"content": "x", "user_id": "{peer}", "mentions": ["{other}"]}, "not_found"),
    ("me", {"content": "x", "user_id": "{peer}", "mentions": "all"}, "not_found"),
    ("me", {"content": "x", "group_id": "{own}", "mentions": [NOBODY]}, "not_found"),
    ("me", {"content": "x", "group_id": "{shared}", "mentions": ["{blocker}"]}, "blocked"),
    ("me", {"content": "y", "user_id": "{peer}", "client_msg_id": "c-1"}, "duplicate_conflict"),
]

TABLE: dict[str, list[Row]] = {
    "messages.sync": [
        ("me", {"cursors": {"users/{other}/inbox": 0}}, "not_authorized"),
        ("me", {"cursors": {"groups/{closed}": 0}}, "not_found"),
        ("me", {"cursors": {"groups/{own}": 0, "groups/{banned}": 0}}, "not_member"),
        ("me", {"cursors": {f"groups/{NOTHING}": 0}}, "not_found"),
        *(
            ("me", {"cursors": {topic: 0}}, "invalid_params")
            for topic in ("", "x", "x" * 10_000, "users/{me}/typing", "groups/{own}/typing", "groups/+", "#")
        ),
        ("me", {"cursors": {f"groups/g{n}": 0 for n in range(10_001)}}, "invalid_params"),
    ],
    "messages.history": [
        *_of_conversations(),
        ("me", {"conversation_id": "{with_peer}", "before_seq": 2, "after_seq": 1}, "invalid_params"),
        (
            "me",
            {"conversation_id": "{with_peer}", "around_seq": 2, "around_id": "{from_peer}"},
            "invalid_params",
        ),
        *(
            ("me", {"conversation_id": "{with_peer}", place: message}, "not_found")
            for place in ("before_id", "after_id", "around_id")
            for message in ("0", "8999999999999999999", "{between_others}", "{in_joined}", "{in_closed}")
        ),
    ],
    "messages.get": [
        ("me", {"ids": []}, "invalid_params"),
        ("me", {"ids": ["1"] * 101}, "invalid_params"),
        ("me", {"ids": ["1", "x"]}, "invalid_params"),
    ],
    "messages.send": SENDING,
    "messages.send_batch": [
        (
            "me",
            {"messages": [{"content": "x", "user_id": "{peer}"}, {"content": "x", "to": 1}]},
            "invalid_params",
        )
    ],
    "messages.read": [
        *_of_conversations(seq=1),
        ("me", {"conversation_id": "{with_peer}", "seq": 99}, "out_of_range"),
        ("me", {"conversation_id": "{with_other}", "seq": 1}, "not_found"),
    ],
    "messages.delivered": [
        *_of_conversations(seq=1),
        ("me", {"conversation_id": "{with_peer}", "seq": 99}, "out_of_range"),
        ("me", {"conversation_id": "{with_other}", "seq": 1}, "not_found"),
    ],
    "messages.readers": _of_messages("not_authorized"),
    "messages.read_counts": _of_conversations(ids=["1"]),
    "messages.edit": [
        *_of_messages("not_authorized", content="x"),
        ("me", {"id": "{recalled}", "content": "x"}, "not_found"),
        ("me", {"id": "{in_ended}", "content": "x"}, "dismissed"),
        ("me", {"id": "{to_blocker}", "content": "x"}, "blocked"),
    ],
    "messages.recall": [
        *_of_messages("not_authorized"),
        ("me", {"id": "{recalled}"}, "not_found"),
        ("me", {"id": "{in_ended}"}, "dismissed"),
    ],
    "conversations.list": [
        ("me", {"cursor": cursor}, "invalid_params") for cursor in ("x", "-1 x", "\u0661 x", " x", "1.5 x")
    ],
    "conversations.set": [
        *_of_conversations(pinned=True),
        ("me", {"conversation_id": "{with_other}", "pinned": True}, "not_found"),
    ],
    "contacts.list": [("me", {"state": "friends"}, "invalid_params")],
    "contacts.request": [
        *_of_peers(),
        ("me", {"user_id": "{peer}"}, "exists"),
        ("me", {"user_id": "{blocker}"}, "blocked"),
        ("blocker", {"user_id": "{me}"}, "blocked"),
    ],
    "contacts.accept": [
        *_of_peers(),
        ("me", {"user_id": "{peer}"}, "exists"),
        ("me", {"user_id": "{other}"}, "not_found"),
        ("me", {"user_id": "{blocker}"}, "blocked"),
    ],
    "contacts.reject": [
        *_of_peers(note="no"),
        ("me", {"user_id": "{peer}"}, "exists"),
        ("me", {"user_id": "{other}"}, "not_found"),
        ("me", {"user_id": "{blocker}"}, "blocked"),
    ],
    "contacts.remove": [*_of_peers(), ("me", {"user_id": "{other}"}, "not_found")],
    "contacts.remark": _of_peers(remark="x"),
    "contacts.block": _of_peers(),
    "contacts.unblock": _of_peers(),
    "groups.create": [
        ("me", {"group_id": "{own}"}, "exists"),
        ("me", {"group_id": "{closed}"}, "exists"),
        ("me", {"members": ["{peer}", NOBODY]}, "not_found"),
        ("me", {"members": ["system"]}, "not_found"),
        ("me", {"members": ["{peer}", "{blocker}"]}, "blocked"),
        ("me", {"members": ["{shy}"]}, "not_contact"),
        ("me", {"members": [f"u{n}" for n in range(MOST_MEMBERS)]}, "quota"),
    ],
    "groups.get": _of_groups(),
    "groups.list": [("me", {"after": None}, "invalid_params")],
    "groups.update": _of_admins(name="Mine"),
    "groups.mute": [
        *_of_admins(until=1),
        *_of_admins(until=1, user_id="{peer}"),
        ("me", {"group_id": "{own}", "until": 1, "user_id": "{other}"}, "not_found"),
        ("me", {"group_id": "{own}", "until": 1, "user_id": "{me}"}, "is_owner"),
        ("peer", {"group_id": "{joined}", "until": 1, "user_id": "{other}"}, "is_owner"),
        ("peer", {"group_id": "{joined}", "until": 1, "user_id": "{peer}"}, "not_authorized"),
    ],
    "groups.set_role": [
        *_of_owners(user_id="{peer}", role="member"),
        ("me", {"group_id": "{own}", "user_id": "{other}", "role": "admin"}, "not_found"),
        ("me", {"group_id": "{shared}", "user_id": "{blocker}", "role": "admin"}, "blocked"),
        ("me", {"group_id": "{own}", "user_id": "{me}", "role": "member"}, "is_owner"),
        ("me", {"group_id": "{own}", "user_id": "{peer}", "role": "owner"}, "invalid_params"),
    ],
    "groups.transfer": [
        *_of_owners(user_id="{peer}"),
        ("me", {"group_id": "{own}", "user_id": "{other}"}, "not_found"),
        ("me", {"group_id": "{own}", "user_id": NOBODY}, "not_found"),
        ("me", {"group_id": "{shared}", "user_id": "{blocker}"}, "blocked"),
    ],
    "groups.dismiss": _of_owners(),
    "groups.members": _of_groups(),
    "groups.add": [
        *_of_groups(user_ids=["{peer}"]),
        ("me", {"group_id": "{joined}", "user_ids": ["{shy}"]}, "not_authorized"),
        ("me", {"group_id": "{ended}", "user_ids": ["{shy}"]}, "dismissed"),
        ("me", {"group_id": "{own}", "user_ids": ["{shy}", NOBODY]}, "not_found"),
        ("me", {"group_id": "{own}", "user_ids": [f"u{n}" for n in range(10_000)]}, "not_found"),
        ("me", {"group_id": "{own}", "user_ids": ["{shy}", "{third}"]}, "banned"),
        ("me", {"group_id": "{full}", "user_ids": ["{third}"]}, "quota"),
        ("me", {"group_id": "{own}", "user_ids": ["{other}", "{shy}"]}, "not_contact"),
        ("me", {"group_id": "{own}", "user_ids": ["{blocker}"]}, "blocked"),
        ("me", {"group_id": "{own}", "user_ids": ["{gone}"]}, "has_left"),
    ],
    "groups.remove": [
        *_of_admins(user_ids=["{third}"]),
        ("me", {"group_id": "{own}", "user_ids": ["{peer}", "{me}"]}, "is_owner"),
        ("peer", {"group_id": "{joined}", "user_ids": ["{me}", "{other}"]}, "is_owner"),
        ("peer", {"group_id": "{joined}", "user_ids": ["{me}", "{peer}"]}, "not_authorized"),
    ],
    "groups.leave": [*_of_groups(), ("me", {"group_id": "{own}"}, "is_owner")],
    "groups.ban": [
        *_of_admins(user_id="{third}"),
        ("me", {"group_id": "{own}", "user_id": NOBODY}, "not_found"),
        ("me", {"group_id": "{own}", "user_id": "{me}"}, "is_owner"),
        ("peer", {"group_id": "{joined}", "user_id": "{other}"}, "is_owner"),
        ("peer", {"group_id": "{joined}", "user_id": "{peer}"}, "not_authorized"),
    ],
    "groups.unban": [
        *_of_admins(user_id="{third}"),
        ("me", {"group_id": "{own}", "user_id": "{shy}"}, "not_found"),
    ],
    "groups.bans": _of_admins(),
    "groups.join": [
        ("me", {"group_id": NOTHING}, "not_found"),
        ("me", {"group_id": "{closed}"}, "not_found"),
        ("me", {"group_id": "{banned}"}, "banned"),
        ("me", {"group_id": "{own}"}, "exists"),
        ("me", {"group_id": "{joined}"}, "exists"),
        ("me", {"group_id": "{ended}"}, "dismissed"),
        ("third", {"group_id": "{full}"}, "quota"),
    ],
    "groups.requests": _of_admins(),
    "groups.accept": [
        *_of_admins(user_id="{third}"),
        ("me", {"group_id": "{own}", "user_id": "{shy}"}, "not_found"),
    ],
    "groups.reject": [
        *_of_admins(user_id="{third}"),
        ("me", {"group_id": "{own}", "user_id": "{shy}"}, "not_found"),
    ],
    "presence.get": [("me", {"user_ids": ["{peer}", ""]}, "invalid_params")],
    "users.get": [("me", {"user_ids": ["{peer}", "a/b"]}, "invalid_params")],
    "users.update": [
        ("me", {"who_may_message": "nobody"}, "invalid_params"),
        ("me", {"who_may_add_me": "members"}, "invalid_params"),
    ],
    "push.users": [("me", {"user_ids": ["{peer}"], "payload": {"a": 1}}, "not_authorized")],
    "session.renew": [("me", {"token": token}, "unauthenticated") for token in ("", "x", "eyJ.eyJ.x")],
}

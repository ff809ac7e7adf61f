"""The topic grammar, conversations and the names of logs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain import conversation
from broker.domain.topics import (
    Kind,
    Topic,
    any_match,
    group_topic,
    inbox_topic,
    is_valid_filter,
    is_wild,
    matches,
    parse_topic,
    presence_topic,
    user_topics,
)

ids = st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "kind", "owner", "method"),
    [
        ("users/alice/inbox", Kind.INBOX, "alice", ""),
        ("users/alice/presence", Kind.PRESENCE, "alice", ""),
        ("users/alice/typing", Kind.TYPING, "alice", ""),
        ("users/alice/events", Kind.EVENTS, "alice", ""),
        ("users/alice/replies", Kind.REPLIES, "alice", ""),
        ("users/alice/rpc/messages.sync", Kind.RPC, "alice", "messages.sync"),
        ("users/rpc/rpc/rpc", Kind.RPC, "rpc", "rpc"),
        ("users/" + "a" * 64 + "/inbox", Kind.INBOX, "a" * 64, ""),
        ("groups/team", Kind.GROUP, "team", ""),
        ("groups/team/typing", Kind.GROUP_TYPING, "team", ""),
        ("groups/typing", Kind.GROUP, "typing", ""),
        ("$SYS/broker/uptime", Kind.SYS, "", ""),
        ("$SYS", Kind.SYS, "", ""),
        ("$share/g/groups/team", Kind.SYS, "", ""),
    ],
)
def test_topics_of_the_table(name: str, kind: Kind, owner: str, method: str) -> None:
    assert parse_topic(name) == Topic(name, kind, owner, method)


@pytest.mark.parametrize(
    "name",
    [
        "users",
        "users/alice",
        "users/alice/",
        "users//inbox",
        "users/alice/inbox/",
        "users/alice/inbox/x",
        "users/alice/Inbox",
        "users/alice/rpc",
        "users/alice/rpc/",
        "users/alice/rpc/a/b",
        "users/" + "a" * 65 + "/inbox",
        "users/al ice/inbox",
        "users/alice\n/inbox",
        "users/$alice/inbox",
        "Users/alice/inbox",
        "/users/alice/inbox",
        "groups",
        "groups/",
        "groups//typing",
        "groups/team/",
        "groups/team/inbox",
        "groups/team/typing/x",
        "groups/a:b",
        "sensors/1",
        "a$",
        "/",
    ],
)
def test_topics_outside_the_table(name: str) -> None:
    assert parse_topic(name) == Topic(name, Kind.OTHER, "")


@given(ids)
def test_names_are_made_as_they_are_read(name: str) -> None:
    assert parse_topic(inbox_topic(name)) == Topic(inbox_topic(name), Kind.INBOX, name)
    assert parse_topic(group_topic(name)) == Topic(group_topic(name), Kind.GROUP, name)
    assert parse_topic(presence_topic(name)) == Topic(presence_topic(name), Kind.PRESENCE, name)
    kinds = {Kind.INBOX, Kind.PRESENCE, Kind.TYPING, Kind.EVENTS, Kind.REPLIES}
    assert {parse_topic(topic).kind for topic in user_topics(name)} == kinds
    assert {parse_topic(topic).owner for topic in user_topics(name)} == {name}


@pytest.mark.parametrize(
    "topic_filter",
    [
        "a",
        "/",
        "//",
        "#",
        "+",
        "+/+",
        "+/#",
        "/#",
        "/+",
        "a/#",
        "a/+/b",
        "a//b",
        "$SYS/#",
        "a/+/#",
        " ",
        "é/#",
    ],
)
def test_valid_filters(topic_filter: str) -> None:
    assert is_valid_filter(topic_filter)
    assert is_wild(topic_filter) == bool({"+", "#"} & set(topic_filter))


@pytest.mark.parametrize(
    "topic_filter",
    ["", "##", "a#", "#a", "a/#/b", "#/", "#/#", "++", "a+", "+a", "a/b+", "a/+b/c", "+#", "a/#+"],
)
def test_invalid_filters(topic_filter: str) -> None:
    assert not is_valid_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        # 4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/#", "sport"),
        ("#", "a"),
        ("#", "/"),
        ("#", "a/b/c"),
        # 4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("+", "finance"),
        ("+/tennis/#", "sport/tennis"),
        ("a/+/c/#", "a//c/d/e"),
        # 4.7.2, 4.7.3
        ("$SYS/#", "$SYS/monitor/Clients"),
        ("$SYS/#", "$SYS"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("a/#", "a/$b"),
        ("a/+", "a/$b"),
        ("ACCOUNTS", "ACCOUNTS"),
        ("/", "/"),
    ],
)
def test_matches(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic)
    assert any_match(["x/y", topic_filter], topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("+", "a/b"),
        ("#", "$SYS"),
        ("#", "$SYS/a"),
        ("+/monitor/Clients", "$SYS/monitor/Clients"),
        ("+", "$SYS"),
        ("+/#", "$SYS/a"),
        ("ACCOUNTS", "Accounts"),
        ("finance", "/finance"),
        ("a/b", "a/b/c"),
        ("a/b/c", "a/b"),
        ("a/+/#", "a"),
        ("sport/#", "sports"),
        ("", "a"),
    ],
)
def test_does_not_match(topic_filter: str, topic: str) -> None:
    assert not matches(topic_filter, topic)
    assert not any_match([topic_filter], topic)


def test_nothing_matches_no_filter() -> None:
    assert not any_match([], "a")


# --- conversations --------------------------------------------------------------------------


@given(ids, ids)
def test_a_private_conversation_is_the_same_from_both_ends(one: str, other: str) -> None:
    name = conversation.private_id(one, other)
    assert name == conversation.private_id(other, one)
    assert conversation.participants(name) == tuple(sorted((one, other)))
    assert conversation.group_of(name) is None


@given(ids)
def test_a_group_conversation(name: str) -> None:
    assert conversation.group_of(conversation.group_id(name)) == name
    assert conversation.participants(conversation.group_id(name)) is None


@pytest.mark.parametrize(
    "name", ["", "p:", "p:a", "p:b:a", "p:a:b:c", "x:a:b", "ga", "users/a/inbox", "g:a:b"]
)
def test_what_is_no_conversation(name: str) -> None:
    assert conversation.participants(name) is None
    assert conversation.group_of(name) is None


def test_names_of_logs() -> None:
    assert conversation.log_name(parse_topic("users/bob/inbox")) == "users/bob/inbox"
    assert conversation.log_name(parse_topic("groups/team")) == "g:team" == conversation.group_id("team")

"""The routing tables, against the definition of matching."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.delivery.router import Router
from broker.delivery.trie import Trie
from broker.domain.topics import Kind, is_valid_filter, is_wild, matches, overlaps, parse_topic

LEVELS = ["a", "b", "", "$x"]

topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.lists(st.sampled_from([*LEVELS, "+"]), min_size=0, max_size=3)
    .flatmap(lambda levels: st.sampled_from([levels, [*levels, "#"]]))
    .map("/".join)
    .filter(is_valid_filter)
)
subscribers = st.sampled_from(["s1", "s2", "s3"])
subscriptions = st.dictionaries(st.tuples(filters, subscribers), st.integers(0, 2), max_size=12)


def oracle(held: dict[tuple[str, str], int], topic: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for (topic_filter, subscriber), qos in held.items():
        if matches(topic_filter, topic):
            found[subscriber] = max(qos, found.get(subscriber, 0))
    return found


# --- the trie -------------------------------------------------------------------------------


@given(subscriptions, topics)
def test_a_trie_finds_what_matches(held: dict[tuple[str, str], int], topic: str) -> None:
    trie: Trie[str] = Trie()
    for (topic_filter, subscriber), qos in held.items():
        trie.add(topic_filter, subscriber, 2 - qos)
        trie.add(topic_filter, subscriber, qos)  # in place of the earlier one
    assert trie.match(topic) == oracle(held, topic)
    assert len(trie) == len(held)


@given(subscriptions, st.sets(st.tuples(filters, subscribers)), topics)
def test_what_is_discarded_is_not_found(
    held: dict[tuple[str, str], int], others: set[tuple[str, str]], topic: str
) -> None:
    trie: Trie[str] = Trie()
    for (topic_filter, subscriber), qos in held.items():
        trie.add(topic_filter, subscriber, qos)
    for topic_filter, subscriber in others:  # some of them are not held
        trie.discard(topic_filter, subscriber)
    left = {key: qos for key, qos in held.items() if key not in others}
    assert trie.match(topic) == oracle(left, topic)
    assert len(trie) == len(left)


@given(subscriptions, st.randoms(use_true_random=False))
def test_a_trie_keeps_nothing_of_what_was_discarded(held: dict[tuple[str, str], int], random: object) -> None:
    trie: Trie[str] = Trie()
    for (topic_filter, subscriber), qos in held.items():
        trie.add(topic_filter, subscriber, qos)
    keys = list(held)
    random.shuffle(keys)  # type: ignore[attr-defined]
    for topic_filter, subscriber in keys:
        trie.discard(topic_filter, subscriber)
        trie.discard(topic_filter, subscriber)
    assert len(trie) == 0
    assert not trie._root.children
    assert not trie._root.values


def test_a_system_topic_and_leading_wildcards() -> None:
    trie: Trie[str] = Trie()
    for topic_filter in ("#", "+/a", "+/#", "$SYS/#", "$SYS/+"):
        trie.add(topic_filter, topic_filter, 0)
    assert set(trie.match("$SYS/a")) == {"$SYS/#", "$SYS/+"}
    assert set(trie.match("a/a")) == {"#", "+/a", "+/#"}


@pytest.mark.parametrize("depth", [100, 30_000])
@pytest.mark.parametrize("level", ["+", "a"])
def test_a_filter_of_many_levels(depth: int, level: str) -> None:
    """A topic of 64 KiB has up to 65,535 levels."""
    trie: Trie[str] = Trie()
    trie.add("/".join([level] * depth), "deep", 1)
    trie.add("#", "all", 0)
    assert trie.match("/".join(["a"] * depth)) == {"deep": 1, "all": 0}
    assert trie.match("/".join(["a"] * (depth + 1))) == {"all": 0}
    trie.discard("/".join([level] * depth), "deep")
    assert len(trie) == 1


# --- the router -----------------------------------------------------------------------------

table_topics = st.sampled_from(
    ["users/al/inbox", "users/al/presence", "groups/team", "$SYS/x", "a/b", "a", "a/"]
)
table_filters = st.sampled_from(
    [
        "#",
        "+",
        "users/#",
        "users/+/inbox",
        "users/+/presence",
        "groups/+",
        "$SYS/#",
        "+/+",
        "a/#",
        "a/+",
        "+/b",
    ]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), table_topics, subscribers, st.integers(0, 2)),
        st.tuples(st.just("add_wild"), table_filters, subscribers, st.integers(0, 2)),
        st.tuples(st.just("add_everything"), table_filters, subscribers, st.integers(0, 2)),
        st.tuples(st.just("discard"), st.one_of(table_topics, table_filters), subscribers, st.just(0)),
    ),
    max_size=25,
)


@given(steps, st.lists(table_topics, max_size=3))
def test_a_router_plans_for_each_subscriber_once(
    steps: list[tuple[str, str, str, int]], asked_between: list[str]
) -> None:
    router: Router[str] = Router()
    exact: dict[tuple[str, str], int] = {}
    wild: dict[tuple[str, str], tuple[int, bool]] = {}
    for step, name, subscriber, qos in steps:
        if step in ("add_wild", "add_everything"):
            router.discard(name, subscriber)  # a wildcard is one of the two kinds
            wild[name, subscriber] = (qos, step == "add_everything")
            getattr(router, step)(name, subscriber, qos)
        elif step == "add":
            exact[name, subscriber] = qos
            router.add(name, subscriber, qos)
        else:
            exact.pop((name, subscriber), None)
            wild.pop((name, subscriber), None)
            router.discard(name, subscriber)
        for topic in asked_between:  # what is remembered must not outlast a change
            router.plan(topic)
    for topic in ("users/al/inbox", "users/al/presence", "groups/team", "$SYS/x", "a/b", "a", "a/", "q"):
        other = parse_topic(topic).kind is Kind.OTHER
        wanted_exact = {s: qos for (name, s), qos in exact.items() if name == topic}
        wanted_wild = oracle({key: qos for key, (qos, all_) in wild.items() if all_ or other}, topic)
        both = {s: max(wanted_exact.get(s, 0), wanted_wild.get(s, 0)) for s in wanted_exact | wanted_wild}
        assert router.exact(topic) == wanted_exact
        assert router.wild(topic) == wanted_wild
        assert router.plan(topic) == both
    assert len(router) == len(exact) + len(wild)


@given(steps)
def test_a_router_keeps_nothing_of_what_was_discarded(steps: list[tuple[str, str, str, int]]) -> None:
    router: Router[str] = Router()
    for step, name, subscriber, qos in steps:
        if step != "discard":
            getattr(router, step)(name, subscriber, qos)
    for _, name, subscriber, _ in steps:
        router.discard(name, subscriber)
    assert len(router) == 0
    assert not router._exact
    assert not router._open._root.children
    assert not router._everything._root.children
    assert router.plan("a/b") == router.plan("users/al/inbox") == {}


def test_wildcards_of_a_user_do_not_reach_into_the_table() -> None:
    router: Router[str] = Router()
    router.add_wild("#", "user", 1)
    router.add_everything("#", "admin", 2)
    assert router.plan("users/al/inbox") == {"admin": 2}
    assert router.plan("groups/team/typing") == {"admin": 2}
    assert router.plan("sensors/1") == {"user": 1, "admin": 2}
    assert router.plan("$SYS/x") == {}


def test_more_topics_than_are_remembered() -> None:
    router: Router[str] = Router()
    router.add_wild("a/+", "s", 1)
    for i in range(25_000):
        assert router.wild(f"a/{i}") == {"s": 1}
    router.discard("a/+", "s")
    assert router.wild("a/24999") == {}


# --- filters against filters ----------------------------------------------------------------

_ALL_TOPICS = ["/".join(levels) for n in range(1, 5) for levels in product(["a", "b", "", "$x"], repeat=n)]
_ALL_FILTERS = [
    topic_filter
    for n in range(1, 4)
    for levels in product(["a", "", "$x", "+", "#"], repeat=n)
    if is_valid_filter(topic_filter := "/".join(levels))
]


def test_filters_overlap_if_a_topic_matches_both() -> None:
    # The empty topic is no topic, but "+" and "/#" may be said to meet there.
    found = {f: frozenset(t for t in _ALL_TOPICS if matches(f, t)) for f in _ALL_FILTERS}
    for one in _ALL_FILTERS:
        for other in _ALL_FILTERS:
            assert overlaps(one, other) == bool(found[one] & found[other]), (one, other)


@given(filters, filters)
def test_overlap_has_no_direction(one: str, other: str) -> None:
    assert overlaps(one, other) == overlaps(other, one)
    assert overlaps(one, one)
    if not is_wild(one):
        assert overlaps(one, other) == matches(other, one)

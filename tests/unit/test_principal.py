"""A client that goes on with a fresh token."""

import pytest

from broker.ports import Identity, Principal

OLD = Identity("alice", "user", 1000.0, "t-1", 900.0)
NEW = Identity("alice", "user", 2000.0, "t-2", 950.0)


def test_a_fresh_token_of_the_same_user_takes_the_place_of_the_old_one() -> None:
    client = Principal(OLD)
    assert client.renew(NEW)
    assert client.identity == NEW


@pytest.mark.parametrize(
    ("before", "fresh"),
    [
        (Identity("alice"), NEW),  # by password: nothing ends
        (OLD, Identity("bob", "user", 2000.0)),
        (OLD, Identity("alice", "admin", 2000.0)),
    ],
)
def test_nothing_else_does(before: Identity, fresh: Identity) -> None:
    client = Principal(before)
    assert not client.renew(fresh)
    assert client.identity is before


def test_an_anonymous_client_is_not_counted_as_a_user_named_like_its_address() -> None:
    nobody, somebody = Identity(""), Identity("192.0.2.1")
    here = ("192.0.2.1", 1000)
    assert Principal(nobody, peer=here).counted_as != Principal(somebody).counted_as
    assert Principal(nobody, peer=here).counted_as == Principal(nobody, peer=("192.0.2.1", 2000)).counted_as

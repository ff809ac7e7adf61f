"""Passwords, tokens with rotating keys, and the contract's topic table."""

import asyncio
import json
import time
from pathlib import Path

import jwt
import pytest

from broker.domain.directory import Account
from plugins.auth.passwords import Passwords
from plugins.auth.tokens import Token, TokenKeyError, Tokens, looks_like_token

NOW = float(int(time.time()))


async def test_passwords() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("right")
    assert hashed.startswith("$argon2id$")
    for _ in range(2):  # the second time from memory
        assert await passwords.verify(b"right", hashed)
        assert not await passwords.verify(b"wrong", hashed)
    assert not await passwords.verify(b"right", None)
    assert not await passwords.verify(b"right", "no hash at all")
    changed = await passwords.hash("new")
    assert not await passwords.verify(b"right", changed)
    passwords.close()


async def test_one_password_at_the_same_time_is_one_computation_with_and_without_a_user() -> None:
    """Else who asks ten times at once would learn from the time it takes whether there is a user."""
    passwords = Passwords()
    for hashed in (await passwords.hash("right"), None):
        asking = [asyncio.ensure_future(passwords.verify(b"wrong", hashed, "alice")) for _ in range(10)]
        asking += [asyncio.ensure_future(passwords.verify(b"wrong", hashed, "bob"))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # they have asked, and what they ask for has begun
        assert passwords._waiting == 2
        assert await asyncio.gather(*asking) == [False] * 11
    passwords.close()


async def test_hashing_leaves_the_event_loop_free() -> None:
    passwords = Passwords()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await passwords.hash("x")
    counting.cancel()
    assert turns > 10
    passwords.close()


def key(name: str) -> str:
    """The key of this name: 64 bytes, as many as HS512 asks for (RFC 7518, section 3.2)."""
    return name * 64


def write_keys(file: Path, active: str, *names: str) -> None:
    file.write_text(json.dumps({"active": active, "keys": {name: key(name) for name in names}}))


def test_tokens(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "keys.json")
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    token = tokens.issue("alice", 3600, NOW)
    assert looks_like_token(token.encode())
    read = tokens.verify(token)
    assert read is not None
    assert (read.user, read.expires_at) == ("alice", NOW + 3600)
    assert tokens.verify(token[:-2]) is None
    assert tokens.verify("") is None
    assert tokens.verify(tokens.issue("alice", 60, 1_000_000.0)) is None  # ended long ago
    again = Tokens(tmp_path / "keys.json").verify(token)
    assert again == read


def test_tokens_know_more_than_whole_seconds(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "keys.json")
    read = tokens.verify(tokens.issue("alice", 3600, NOW - 0.75))
    assert read is not None
    assert read.issued_at == NOW - 0.75


def test_tokens_have_a_kind_and_an_id(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "keys.json")
    issued = [tokens.issue("alice", 3600, NOW) for _ in range(100)]
    ids = {read.id for token in issued if (read := tokens.verify(token)) is not None}
    assert len(ids) == 100
    assert "" not in ids
    refresh = tokens.issue("alice", 3600, NOW, "refresh")
    assert tokens.verify(refresh) is None
    assert tokens.verify(issued[0], "refresh") is None
    assert tokens.verify(refresh, "refresh") is not None


def test_tokens_of_before_there_were_ids(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", "a", "a")
    old = jwt.encode({"sub": "alice", "iat": NOW, "exp": NOW + 3600}, key("a"), "HS256", headers={"kid": "a"})
    tokens = Tokens(tmp_path / "keys.json")
    assert tokens.verify(old) == Token("alice", NOW + 3600, NOW)
    assert tokens.verify(old, "refresh") is None


def test_key_rotation(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, "a", "a")
    tokens = Tokens(file)
    old = tokens.issue("alice", 3600, NOW)
    write_keys(file, "b", "a", "b")
    new = tokens.issue("alice", 3600, NOW)
    assert jwt.get_unverified_header(new)["kid"] == "b"
    assert tokens.verify(old) is not None
    assert tokens.verify(new) is not None
    write_keys(file, "b", "b")
    assert tokens.verify(old) is None
    assert tokens.verify(new) is not None


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, key("a"), "HS256"),  # no kid
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, key("a"), "HS256", headers={"kid": "z"}),
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, key("b"), "HS256", headers={"kid": "a"}),
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, key("a"), "HS512", headers={"kid": "a"}),
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, None, "none", headers={"kid": "a"}),
        jwt.encode({"exp": NOW + 3600}, key("a"), "HS256", headers={"kid": "a"}),
        jwt.encode({"sub": "alice"}, key("a"), "HS256", headers={"kid": "a"}),  # without end
        "eyJ.eyJ.x",
    ],
    ids=range(8),  # not the tokens: they differ from worker to worker
)
def test_tokens_that_are_none(tmp_path: Path, token: str) -> None:
    write_keys(tmp_path / "keys.json", "a", "a")
    assert Tokens(tmp_path / "keys.json").verify(token) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "keys.json"),
        ('{"active": "a", "keys": {}}', "active key 'a'"),
        ('{"active": "a", "keys": {"a": "short"}}', "fewer than 32"),
    ],
)
def test_bad_key_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(TokenKeyError, match=message):
        Tokens(tmp_path / "keys.json")


def test_a_token_is_for_its_account_until_the_tokens_are_revoked(tmp_path: Path) -> None:
    """Whatever the times say: the wall clock may have been set back or forward since."""
    tokens = Tokens(tmp_path / "keys.json")
    now = int(NOW)
    account = Account("alice", created_at=now * 1000 + 7, tokens_after=now + 60)
    read = tokens.verify(tokens.issue("alice", 3600, NOW + 1000.0, account=account))
    assert read is not None, "issued in the future"
    assert (read.account, read.issued_at) == (now * 1000 + 7, now + 60)
    forged = {"sub": "alice", "iat": NOW, "exp": NOW + 3600, "acc": "x"}
    keys = json.loads((tmp_path / "keys.json").read_bytes())
    (kid, secret), *_ = keys["keys"].items()
    assert tokens.verify(jwt.encode(forged, secret, "HS256", headers={"kid": kid})) is None

"""Passwords, tokens with rotating keys, and the topic table of docs/topics.md."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jwt
import pytest

from broker.domain.attempts import Attempts, TooManyAttemptsError
from broker.domain.directory import Account
from broker.domain.errors import StoreError
from plugins.auth.authenticator import Authenticator
from plugins.auth.passwords import Passwords
from plugins.auth.tokens import Token, TokenKeyError, Tokens, looks_like_token
from plugins.persistence.sql_directory import open_directory

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
    """Otherwise the duration of ten parallel attempts would tell whether the user exists."""
    passwords = Passwords()
    for hashed in (await passwords.hash("right"), None):
        asking = [asyncio.ensure_future(passwords.verify(b"wrong", hashed, "alice")) for _ in range(10)]
        asking += [asyncio.ensure_future(passwords.verify(b"wrong", hashed, "bob"))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # they have asked, and what they ask for has begun
        assert passwords._running == 2
        assert await asyncio.gather(*asking) == [False] * 11
    passwords.close()


async def test_one_address_delays_others_by_one_of_its_passwords_only() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("right")
    done: list[str] = []
    begun = asyncio.Event()

    async def ask(line: str, number: int) -> None:
        with suppress(StoreError):  # those that found no room
            await passwords.verify(f"wrong {number}".encode(), hashed, "alice", line)
            done.append(line)
            begun.set()

    flood = [asyncio.ensure_future(ask("attacker", number)) for number in range(400)]
    await begun.wait()
    before = len(done)
    await asyncio.gather(*(ask(f"other {number}", number) for number in range(3)))
    last = max(done.index(f"other {number}") for number in range(3))
    # Two were running, and each of the three may have waited for one more turn of the attacker.
    assert done[before:last].count("attacker") <= 2 + 3
    for each in flood:
        each.cancel()
    passwords.close()


async def test_a_full_queue_refuses_whom_it_is_full_of() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("right")
    flood = [
        asyncio.ensure_future(passwords.verify(f"wrong {number}".encode(), hashed, "alice", "attacker"))
        for number in range(400)
    ]
    await asyncio.sleep(0)
    assert await passwords.verify(b"right", hashed, "bob", "other")
    refused = [each for each in flood if each.done() and isinstance(each.exception(), StoreError)]
    assert len(refused) >= 198  # 200 wait, two run
    for each in flood:
        each.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    passwords.close()


async def test_who_is_not_admitted_costs_no_hash() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("right")

    def admit() -> Callable[[bool], None]:
        raise TooManyAttemptsError(3.0)

    for password in (b"right", b"wrong"):
        with pytest.raises(TooManyAttemptsError):
            await passwords.verify(password, hashed, "alice", "here", admit)
        assert passwords._running == 0
    assert await passwords.verify(b"right", hashed, "alice", "here")
    passwords.close()


async def test_attempts_are_counted_by_user_and_address(tmp_path: Path) -> None:
    passwords = Passwords()
    directory = await open_directory(f"sqlite:///{tmp_path / 'directory.db'}", passwords.hash, lambda: 0)
    await directory.add_account("alice", "wonderland", "user")
    authenticator = Authenticator(
        directory, passwords, Tokens(tmp_path / "keys.json"), Attempts(3, 4), lambda: NOW
    )

    async def tried(user: str, password: bytes, address: str = "192.0.2.1") -> bool | None:
        """None: it was not looked at."""
        try:
            return await authenticator.by_password(user, password, address) is not None
        except TooManyAttemptsError:
            return None

    # Devices that come at once with the right password are no failures, however many they are.
    assert await asyncio.gather(*(tried("alice", b"wonderland") for _ in range(50))) == [True] * 50
    assert [await tried("nobody", b"x", "192.0.2.2") for _ in range(4)] == [False] * 3 + [None]
    assert [await tried("alice", b"wrong") for _ in range(4)] == [False] * 3 + [None]
    assert await tried("alice", b"wonderland") is None  # known to be right, and not looked at
    assert await tried("alice", b"wonderland", "192.0.2.3")  # strangers have tried nothing
    guesses = [tried(f"u{number}", b"x", "192.0.2.4") for number in range(20)]
    assert sorted(await asyncio.gather(*guesses), key=str) == [False] * 4 + [None] * 16
    await directory.close()
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


def test_a_reload_says_what_has_changed_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, "a", "a", "b")
    tokens = Tokens(file)
    assert tokens.reload() == []
    write_keys(file, "c", "b", "c")
    assert tokens.verify("eyJ.eyJ.x") is None  # reads the file, too
    assert tokens.reload() == ["key 'a' is gone", "key 'c' is new", "the active key is 'c'"]
    assert tokens.reload() == []
    file.write_text(json.dumps({"active": "c", "keys": {"b": key("x"), "c": key("c")}}))
    assert tokens.reload() == ["key 'b' is another one"]
    file.write_text("{")
    with pytest.raises(TokenKeyError, match=r"keys\.json"):
        tokens.reload()


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

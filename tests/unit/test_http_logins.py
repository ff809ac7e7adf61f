"""Tokens and their refreshing, over a real directory, at times of the test's own."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.http_api.logins import GRACE, Logins, Pair
from broker.config import Http
from broker.domain.attempts import Attempts, TooManyAttemptsError
from broker.domain.errors import StoreError
from broker.ports import DirectoryError
from plugins.auth.authenticator import Authenticator
from plugins.auth.passwords import Passwords
from plugins.auth.tokens import Tokens
from plugins.persistence.sql_directory import SqlDirectory, open_directory

HERE = "192.0.2.1"


class Home:
    """A directory with the user alice, and her logins. Its clock is an hour behind, as tokens of the
    future are not accepted; it goes on only when told."""

    directory: SqlDirectory
    authenticator: Authenticator
    logins: Logins

    def __init__(self) -> None:
        self.now = float(int(time.time()) - 3600)
        self.passwords = Passwords()
        self.refused: Counter[str] = Counter()

    async def open(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'directory.db'}"
        self.directory = await open_directory(url, self.passwords.hash, lambda: int(self.now * 1000))
        tokens = Tokens(folder / "keys.json")
        attempts = Attempts(3, 100)
        self.authenticator = Authenticator(self.directory, self.passwords, tokens, attempts, lambda: self.now)
        nothing: Any = None
        self.logins = Logins(
            self.authenticator,
            self.directory,
            nothing,
            attempts,
            Http(),
            lambda: self.now,
            lambda: self.now,
            self.refused,
        )

    async def login(self) -> Pair:
        return await self.logins.login("alice", "wonderland", HERE)

    async def is_good(self, pair: Pair) -> bool:
        """Whether its access token would be accepted."""
        bearer = await self.authenticator.by_token(pair.access_token)
        return bearer is not None and not bearer.revoked

    async def refused_refresh(self, pair: Pair) -> None:
        with pytest.raises(DirectoryError) as refusal:
            await self.logins.refresh(pair.refresh_token)
        assert refusal.value.code == "unauthenticated"

    async def close(self) -> None:
        await self.directory.close()
        self.passwords.close()


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home()
    await home.open(tmp_path)
    await home.directory.add_account("alice", "wonderland", "user")
    yield home
    await home.close()


async def test_a_pair(home: Home) -> None:
    pair = await home.login()
    access = await home.authenticator.by_token(pair.access_token)
    refresh = await home.authenticator.by_token(pair.refresh_token, "refresh")
    assert access is not None
    assert refresh is not None
    assert (access.account.user_id, access.revoked) == ("alice", False)
    assert access.token.expires_at - home.now == pair.expires_in == 86400
    assert refresh.token.expires_at - home.now == 30 * 86400
    assert access.token.id != refresh.token.id
    # Neither is taken for the other.
    assert await home.authenticator.by_token(pair.refresh_token) is None
    assert await home.authenticator.by_token(pair.access_token, "refresh") is None


async def test_a_refresh_token_is_good_once(home: Home) -> None:
    first = await home.login()
    second = await home.logins.refresh(first.refresh_token)
    third = await home.logins.refresh(second.refresh_token)
    assert len({p.refresh_token for p in (first, second, third)}) == 3
    await home.refused_refresh(first)  # at once: a second tab, or an answer that got lost
    home.now += GRACE - 1
    await home.refused_refresh(first)
    for pair in (first, second, third):
        assert await home.is_good(pair)
    await home.logins.refresh(third.refresh_token)


async def test_one_that_comes_again_later_ends_everything(home: Home) -> None:
    elsewhere = await home.login()
    first = await home.login()
    second = await home.logins.refresh(first.refresh_token)
    home.now += GRACE
    await home.refused_refresh(first)
    for pair in (elsewhere, first, second):
        assert not await home.is_good(pair)
        await home.refused_refresh(pair)
    again = await home.login()  # in the same second
    assert await home.is_good(again)
    home.now += 2 * GRACE
    await home.refused_refresh(first)  # cannot be used to log alice out a second time
    assert await home.is_good(again)


async def test_many_refreshes_at_the_same_time(home: Home) -> None:
    pair = await home.login()
    results = await asyncio.gather(
        *(home.logins.refresh(pair.refresh_token) for _ in range(20)), return_exceptions=True
    )
    (fresh,) = [result for result in results if isinstance(result, Pair)]
    assert all(isinstance(result, Pair | DirectoryError) for result in results)
    assert await home.is_good(fresh)
    await home.logins.refresh(fresh.refresh_token)


async def test_a_store_that_fails_leaves_the_refresh_token_good(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = await home.login()

    async def fail(*_: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(home.directory, "revoke_token", fail)
        with pytest.raises(StoreError):
            await home.logins.refresh(pair.refresh_token)
    assert await home.is_good(await home.logins.refresh(pair.refresh_token))


async def test_logout_ends_one_login(home: Home) -> None:
    phone, laptop = await home.login(), await home.login()
    await home.logins.logout(phone.access_token, phone.refresh_token)
    assert not await home.is_good(phone)
    assert await home.is_good(laptop)
    home.now += 2 * GRACE
    await home.refused_refresh(phone)  # a tab that does not know yet: nobody has copied anything
    assert await home.is_good(laptop)
    with pytest.raises(DirectoryError):
        await home.logins.logout(phone.access_token)


async def test_logout_with_a_refresh_token_that_was_used_ends_everything(home: Home) -> None:
    first = await home.login()
    second = await home.logins.refresh(first.refresh_token)  # by whom?
    await home.logins.logout(first.access_token, first.refresh_token)
    assert not await home.is_good(second)
    await home.refused_refresh(second)


async def test_logout_everywhere(home: Home) -> None:
    pairs = [await home.login() for _ in range(3)]
    await home.logins.logout(pairs[0].access_token, everywhere=True)
    for pair in pairs:
        assert not await home.is_good(pair)
        await home.refused_refresh(pair)


async def test_logout_leaves_the_tokens_of_others_alone(home: Home) -> None:
    await home.directory.add_account("bob", "builder", "user")
    alice, bob = await home.login(), await home.logins.login("bob", "builder", HERE)
    await home.logins.logout(alice.access_token, bob.refresh_token)
    await home.logins.refresh(bob.refresh_token)
    await home.logins.logout((await home.login()).access_token, "not a token")


async def test_a_new_password_and_disabling_end_refreshing(home: Home) -> None:
    pair = await home.login()
    home.now += 1
    await home.directory.set_password("alice", "looking-glass")
    await home.refused_refresh(pair)
    assert not await home.is_good(pair)
    pair = await home.logins.login("alice", "looking-glass", HERE)
    await home.directory.set_disabled("alice", True)
    await home.refused_refresh(pair)
    with pytest.raises(DirectoryError, match="wrong user id or password"):
        await home.logins.login("alice", "looking-glass", HERE)


async def test_a_login_that_a_revocation_overtakes_is_void(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = home.authenticator.by_password

    async def overtaken(user: str, password: bytes, address: str) -> object:
        account = await right(user, password, address)
        await home.directory.revoke_tokens("alice", int(home.now) + 1)
        return account

    monkeypatch.setattr(home.authenticator, "by_password", overtaken)
    assert not await home.is_good(await home.login())


async def test_failures_are_limited_and_counted(home: Home) -> None:
    for _ in range(3):
        with pytest.raises(DirectoryError):
            await home.logins.login("alice", "wrong", HERE)
    with pytest.raises(TooManyAttemptsError):
        await home.login()
    assert home.refused == {"login": 3, "login_rate": 1}
    home.now += 20
    assert await home.is_good(await home.login())


async def test_without_the_plugin_there_are_no_logins(home: Home) -> None:
    home.logins._authenticator_or_none = None
    with pytest.raises(DirectoryError) as refusal:
        await home.login()
    assert refusal.value.code == "unavailable"

"""Whether the stores are those that the data directory was used with."""

import json
from pathlib import Path

import pytest

from broker.domain.errors import StoreError
from broker.ports import StoreIdentity
from server.data_dir import StartError
from server.identity import identify, keep
from tests.outside.memory_store import Contents, Opened
from tests.outside.memory_store.identity import MemoryIdentity

A, B = StoreIdentity("a" * 32, 1), StoreIdentity("b" * 32, 4)


class Given:
    """A data directory, a message store and a directory, with the given identities."""

    def __init__(
        self,
        data_dir: Path,
        kept: StoreIdentity | None = None,
        messages: StoreIdentity | None = None,
        directory: StoreIdentity | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.contents = Contents(), Contents()
        self.contents[0].identity, self.contents[1].identity = messages, directory
        if kept is not None:
            keep(data_dir, kept)

    async def identify(self, accept_new: bool = False) -> StoreIdentity:
        messages, directory = (MemoryIdentity(Opened(each)) for each in self.contents)
        return await identify(self.data_dir, messages, directory, accept_new=accept_new)

    async def refused(self) -> str:
        before = self.found()
        with pytest.raises(StartError) as raised:
            await self.identify()
        assert self.found() == before, "nothing is changed"
        return str(raised.value)

    def found(self) -> list[StoreIdentity | None]:
        """The identities of data directory, message store and directory."""
        file = self.data_dir / "store.json"
        kept = None
        if file.exists():
            values = json.loads(file.read_text())
            kept = StoreIdentity(values["id"], values["generation"])
        return [kept, *(each.identity for each in self.contents)]


async def test_stores_without_an_identity_are_given_one(tmp_path: Path) -> None:
    given = Given(tmp_path)
    identity = await given.identify()
    assert (len(identity.id), identity.generation) == (32, 1)
    assert given.found() == [identity] * 3
    assert await given.identify() == identity
    other = tmp_path / "other"
    other.mkdir()
    assert (await Given(other).identify()).id != identity.id


async def test_stores_that_agree_may_move_to_a_new_data_directory(tmp_path: Path) -> None:
    given = Given(tmp_path, None, B, B)
    assert await given.identify() == B
    assert given.found() == [B] * 3


@pytest.mark.parametrize("written", [(A, None), (None, A), (A, A), (None, None)])
async def test_a_first_start_that_was_cut_off_is_finished(
    tmp_path: Path, written: tuple[StoreIdentity | None, StoreIdentity | None]
) -> None:
    given = Given(tmp_path, None, *written)
    keep(tmp_path, A, written=False)
    assert await given.identify() == A
    assert given.found() == [A] * 3
    given.contents[0].identity = None
    assert "message store (new or emptied)" in await given.refused(), "it is finished"


@pytest.mark.parametrize(
    ("kept", "messages", "directory", "named"),
    [
        (A, None, A, "the message store (new or emptied) is not what"),
        (A, A, None, "the directory (new or emptied) is not what"),
        (A, None, None, "the message store (new or emptied) and the directory (new or emptied) are not what"),
        (A, B, A, "the message store (store bbbbbbbb of generation 4) is not what"),
        (A, A, B, "the directory (store bbbbbbbb of generation 4) is not what"),
        (A, StoreIdentity(A.id, 2), A, "the message store (store aaaaaaaa of generation 2) is not what"),
        (None, None, A, "(store aaaaaaaa of generation 1) do not belong together"),
        (None, A, None, "the message store (store aaaaaaaa of generation 1) and the directory (new"),
    ],
)
async def test_others_are_refused_until_they_are_accepted(
    tmp_path: Path,
    kept: StoreIdentity | None,
    messages: StoreIdentity | None,
    directory: StoreIdentity | None,
    named: str,
) -> None:
    given = Given(tmp_path, kept, messages, directory)
    refused = await given.refused()
    assert named in refused
    assert refused.endswith("--accept-new-store")
    assert "\n" not in refused
    accepted = await given.identify(accept_new=True)
    assert given.found() == [accepted] * 3
    assert await given.identify() == accepted


async def test_another_message_store_is_another_generation(tmp_path: Path) -> None:
    accepted = await Given(tmp_path, B, None, B).identify(accept_new=True)
    assert accepted.id != B.id
    assert accepted.generation == 5


async def test_another_directory_leaves_the_offsets_valid(tmp_path: Path) -> None:
    assert await Given(tmp_path, B, B, A).identify(accept_new=True) == B


async def test_nothing_to_accept(tmp_path: Path) -> None:
    assert await Given(tmp_path, A, A, A).identify(accept_new=True) == A


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}'])
async def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StartError, match=r"store\.json is damaged"):
        await Given(tmp_path, None, A, A).identify()
    (tmp_path / "store.json").unlink()
    assert await Given(tmp_path, None, A, A).identify() == A


async def test_a_store_that_fails_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    given = Given(tmp_path, A, A, A)
    closed = Opened(given.contents[0])
    await closed.close()
    with pytest.raises(StoreError):
        await identify(tmp_path, MemoryIdentity(closed), MemoryIdentity(closed), accept_new=True)

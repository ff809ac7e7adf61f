"""New accounts: added by an administrator, or by users who register themselves."""

from bridge.core.tails import head
from bridge.core.turns import Turns
from broker.domain.directory import SYSTEM, is_system
from broker.domain.topics import inbox_topic, presence_topic
from broker.ports import (
    Account,
    AccountDirectory,
    DirectoryError,
    Forgotten,
    MessageLog,
    Retained,
    SaveChanges,
    Unseen,
)

MIN_PASSWORD = 4
"""Characters. Low on purpose, so that a trial can use passwords like "demo". Real accounts are
protected by the slow hash and by the operator's own policy."""
MAX_PASSWORD = 1024
"""Characters. MQTT allows a password of 65,535 bytes, but hashing that many costs time and protects
nobody."""


def check_password(password: str) -> None:
    """Check the length of a password.

    Raises:
        ValueError: it is too short or too long; the text says so.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ValueError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, not {len(password)}")


def next_revocation(account: Account, now: float) -> int:
    """The `tokens_after` (Unix s) that revokes all tokens of an account, those of this second included. It
    grows with each revocation, whatever the wall clock says."""
    return max(int(now), account.tokens_after) + 1


class NewAccounts:
    """Adds accounts. `save` commits changes to the state store and raises `StoreError`."""

    def __init__(
        self,
        directory: AccountDirectory,
        log: MessageLog,
        save: SaveChanges,
    ) -> None:
        self._directory = directory
        self._log = log
        self._save = save
        # By id: what is deleted for a new account is not that of another which was just added.
        self._turns: Turns[str] = Turns()

    async def add(
        self, user_id: str, password: str | None, role: str = "user", *, reuse_id: bool = False
    ) -> Account:
        """Add an account. Without a password, the user can connect with tokens only. `reuse_id`: also if a
        removed account had the id.

        Raises:
            DirectoryError: `exists`: an account has the id, or one that differs in case only; or the id is
                the server's own; or, without `reuse_id`, a removed account had it.
            StoreError: a store failed.
        """
        if is_system(user_id):
            raise DirectoryError("exists", f"the id {SYSTEM} is reserved for the server")
        async with self._turns.of(user_id.lower()):
            await self._directory.check_new_id(user_id, reuse=reuse_id)
            floor = await head(self._log, inbox_topic(user_id))
            # The directory does not know of accounts that an earlier version has removed.
            if floor and not reuse_id:
                raise DirectoryError("exists", f"user {user_id}: an earlier account had this id")
            # The floor hides the inbox of the earlier account. Its sessions, marks and presence were deleted
            # with it, unless the node died in between: so they are deleted here again.
            presence = Retained(presence_topic(user_id), b"", 1)
            await self._save([Forgotten(user_id, None), Unseen(user_id), presence])
            return await self._directory.add_account(user_id, password, role, floor, reuse_id=reuse_id)

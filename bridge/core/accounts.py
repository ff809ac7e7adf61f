"""New accounts: made by an administrator, or by whoever registers."""

from bridge.core.tails import head
from broker.domain.directory import SYSTEM
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
"""Characters. Low on purpose: whether "demo" is good enough for a trial is the operator's to say,
and what protects a real account is the slow hash and the operator's own policy."""
MAX_PASSWORD = 1024
"""Characters; an MQTT password has up to 65,535 bytes, and hashing that much would only cost."""


def check_password(password: str) -> None:
    """Raises `ValueError`, which says so, if a password is too short or too long."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ValueError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, not {len(password)}")


class NewAccounts:
    """Makes accounts. `save` commits changes of the state store and raises `StoreError`."""

    def __init__(
        self,
        directory: AccountDirectory,
        log: MessageLog,
        save: SaveChanges,
    ) -> None:
        self._directory = directory
        self._log = log
        self._save = save

    async def add(self, user_id: str, password: str | None, role: str = "user") -> Account:
        """Add an account; without a password, the user connects with tokens only.

        Raises:
            DirectoryError: `exists`, there is such a user, or the id is the server's own.
            StoreError: a store failed.
        """
        if user_id == SYSTEM:
            raise DirectoryError("exists", f"the id {SYSTEM} is the server's own")
        if await self._directory.account(user_id) is not None:
            raise DirectoryError("exists", f"user {user_id} exists already")
        # Another user may have had the id before. The new user must not see what is in that inbox, nor
        # what was kept for it. That went with the account, unless the node ended in between.
        floor = await head(self._log, inbox_topic(user_id))
        presence = Retained(presence_topic(user_id), b"", 1)
        await self._save([Forgotten(user_id, None), Unseen(user_id), presence])
        return await self._directory.add_account(user_id, password, role, floor)

"""Tables of the directory."""

from sqlmodel import Field, SQLModel


class UserRow(SQLModel, table=True):
    """An account. `created_at` is Unix milliseconds."""

    __tablename__ = "users"

    user_id: str = Field(primary_key=True, max_length=64)
    password_hash: str | None = None
    role: str = "user"
    disabled: bool = False
    created_at: int
    inbox_floor: int = 0


class GroupRow(SQLModel, table=True):
    """A group."""

    __tablename__ = "groups"

    group_id: str = Field(primary_key=True, max_length=64)
    name: str
    owner: str = Field(max_length=64)
    created_at: int


class MembershipRow(SQLModel, table=True):
    """A user's place in a group."""

    __tablename__ = "memberships"

    group_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(primary_key=True, max_length=64, index=True)
    role: str = "member"
    joined_seq: int
    muted_until: int = 0

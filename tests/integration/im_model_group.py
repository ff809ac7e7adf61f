"""The model of a group, for `im_model`."""

from collections import Counter

import msgspec


class Member(msgspec.Struct):
    """A user's membership of a group. The user may not read entries up to `floor`."""

    role: str
    floor: int
    muted: bool = False


class Span(msgspec.Struct):
    """A period of membership: the user may read entries after `floor`, and up to `until` if it has ended."""

    floor: int
    until: int | None = None

    def __contains__(self, offset: int) -> bool:
        return self.floor < offset and (self.until is None or offset <= self.until)


class Group:
    """`heads` counts the entries of all conversations."""

    def __init__(self, group_id: str, owner: str, others: list[str], heads: Counter[str]) -> None:
        self.id = group_id
        self.conversation = f"g:{group_id}"
        self.topic = f"groups/{group_id}"
        self.owner = owner
        self.members: dict[str, Member] = {}
        self.spans: dict[str, list[Span]] = {}
        self.banned: set[str] = set()
        self.left: set[str] = set()
        self.muted_before: set[str] = set()
        """Those who were muted when they ceased to be members."""
        self.requests: set[str] = set()
        self.settings: dict[str, object] = {
            "join": "approval",
            "who_may_invite": "members",
            "who_may_post": "members",
            "history_visible": False,
        }
        self.muted = False
        self.dismissed = False
        self._heads = heads
        for user in {owner, *others}:
            self._take_in(user)
        self.members[owner].role = "owner"
        self._tell()

    @property
    def head(self) -> int:
        return self._heads[self.conversation]

    def _tell(self) -> None:
        self._heads[self.conversation] += 1

    def _take_in(self, user: str) -> None:
        floor = 0 if self.settings["history_visible"] else self.head
        self.members[user] = Member("member", floor, muted=user in self.muted_before)
        self.muted_before.discard(user)
        self.spans.setdefault(user, []).append(Span(floor))
        self.requests.discard(user)
        self.left.discard(user)

    def _let_go(self, user: str) -> None:
        if self.members.pop(user).muted:
            self.muted_before.add(user)
        self.spans[user][-1].until = self.head

    # --- who may ---------------------------------------------------------------------------

    def role(self, user: str) -> str | None:
        return self.members[user].role if user in self.members else None

    def hides(self) -> bool:
        """Whether it is as if it did not exist for users who are not members."""
        return self.dismissed or self.settings["join"] == "closed"

    def entered(self, user: str) -> str | None:
        """The code with which the group refuses a user who is not a member; None for a member."""
        if user in self.members:
            return None
        return "not_found" if self.hides() else "not_member"

    def ended(self, user: str) -> str | None:
        """The code with which the group refuses what ends with it; None if it is not dismissed."""
        return self.entered(user) or ("dismissed" if self.dismissed else None)

    def _led(self, user: str, *leaders: str) -> str | None:
        if (code := self.ended(user)) is not None:
            return code
        return None if self.role(user) in leaders else "not_authorized"

    def _touched(self, user: str, target: str) -> str | None:
        match self.role(user), self.role(target):
            case _, "owner":
                return "is_owner"
            case "admin", "admin":
                return "not_authorized"
        return None

    def post(self, user: str) -> str | None:
        if user not in self.members:
            return "not_member"  # whether or not there is such a group
        if self.dismissed:
            return "dismissed"
        role = self.role(user)
        if role == "member" and self.settings["who_may_post"] == "admins":
            return "not_authorized"
        is_muted = role != "owner" and self.members[user].muted
        return "muted" if is_muted or (role == "member" and self.muted) else None

    # --- members ---------------------------------------------------------------------------

    def add(self, by: str, user: str, consent: str | None) -> str | None:
        """`consent` is the code with which the user refuses to be added by the other."""
        leaders = ["owner", "admin"] + ["member"] * (self.settings["who_may_invite"] == "members")
        code = self._led(by, *leaders)
        if code is None and user not in self.members:
            if user in self.banned:
                return "banned"
            if user in self.left or consent is not None:
                return "has_left" if user in self.left else consent
            self._take_in(user)
            self._tell()
        return code

    def remove(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin") or self._touched(by, user)
        if code is None and user in self.members:
            self._let_go(user)
            self._tell()
        return code

    def leave(self, user: str) -> str | None:
        if (code := self.entered(user)) is not None:
            return code
        if user == self.owner:
            return "is_owner"
        self._let_go(user)
        self.left.add(user)
        self._tell()
        return None

    def ban(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin") or self._touched(by, user)
        if code is None:
            self.banned.add(user)
            self.requests.discard(user)
            if user in self.members:
                self._let_go(user)
            self._tell()
        return code

    def unban(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and user not in self.banned:
            code = "not_found"
        if code is None:
            self.banned.discard(user)
            self._tell()
        return code

    def join(self, user: str) -> str | None:
        if self.dismissed:
            return self.ended(user)
        if user in self.members:
            return "exists"
        if self.hides() and (user in self.banned or user not in self.left):
            return "not_found"
        if user in self.banned:
            return "banned"
        if self.settings["join"] == "open":
            self._take_in(user)
            self._tell()
        else:
            self.requests.add(user)
        return None

    def accept(self, by: str, user: str) -> str | None:
        code = self.reject(by, user)
        if code is None:
            self._take_in(user)
            self._tell()
        return code

    def reject(self, by: str, user: str) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and user not in self.requests:
            code = "not_found"
        if code is None:
            self.requests.discard(user)
        return code

    # --- what they are -----------------------------------------------------------------------

    def mute(self, by: str, user: str | None, muted: bool) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and user is not None:
            code = self._touched(by, user) if user in self.members else "not_found"
        if code is None:
            (self if user is None else self.members[user]).muted = muted
            self._tell()
        return code

    def set_role(self, by: str, user: str, role: str, blocked: bool) -> str | None:
        code = self._led(by, "owner")
        if code is None:
            code = self._touched(by, user) if user in self.members else "not_found"
        if code is None and self.role(user) != role:
            if role == "admin" and blocked:
                return "blocked"
            self.members[user].role = role
            self._tell()
        return code

    def transfer(self, by: str, user: str, blocked: bool) -> str | None:
        code = self._led(by, "owner")
        if code is None and user not in self.members:
            code = "not_found"
        if code is None and user != by:
            if blocked:
                return "blocked"
            self.members[by].role, self.members[user].role = "admin", "owner"
            self.members[user].muted = False
            self.owner = user
            self._tell()
        return code

    def update(self, by: str, name: str, value: object) -> str | None:
        code = self._led(by, "owner", "admin")
        if code is None and self.settings[name] != value:
            self.settings[name] = value
            self._tell()
        return code

    def dismiss(self, by: str) -> str | None:
        code = self._led(by, "owner")
        if code is None:
            self.dismissed = True
            self._tell()
        return code

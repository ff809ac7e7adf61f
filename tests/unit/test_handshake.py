"""CONNECT without an event loop: a hand-written gate and registry that answer at once."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from broker.domain.attempts import TooManyAttemptsError
from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.domain.publication import Publication
from broker.domain.topics import Topic
from broker.net.handshake import ConnectRefusal, admit, choose_client_id, connect
from broker.ports import Credentials, Gate, Grant, Identity, Principal, SessionKey
from broker.publish.pipeline import Publisher
from broker.registry import Client, Registry
from broker.wire.packets import Connect, ConnectCode

PEER = ("192.0.2.1", 4711)
WILL = Publication("groups/team", b"gone", 1, False)
ALICE = Credentials("phone", "alice", b"secret", *PEER)
NO = Refusal("not_authorized", ReasonCode.NOT_AUTHORIZED, "not a member")


def run(step: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits to its end."""
    try:
        step.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")


class TheGate:
    """Lets alice in; `broken` fails, and `refusal` is the answer to every will."""

    def __init__(self, broken: bool = False, refusal: Refusal | None = None) -> None:
        self.broken = broken
        self.refusal = refusal
        self.asked: list[object] = []

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        self.asked.append(credentials)
        if self.broken:
            raise StoreError("the directory is gone")
        return Principal(Identity("alice")) if credentials.password == b"secret" else None

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        self.asked.append((principal.identity.user, topic.name))
        return self.refusal

    async def grant(self, principal: Principal, topic_filter: str) -> Grant | None:
        raise AssertionError("nobody subscribes here")


class Desk:
    """A registry that turns the first `changes` clients away, as accounts change meanwhile."""

    def __init__(self, changes: int = 0) -> None:
        self.changes = changes
        self.epoch = 0
        self.attached: list[tuple[SessionKey, bool]] = []

    async def attach(
        self, client: Client, key: SessionKey, clean: bool, accept: Callable[[bool], None]
    ) -> bool:
        if self.epoch < self.changes:
            self.epoch += 1
            return False
        assert client.publisher.epoch == self.epoch
        self.attached.append((key, clean))
        accept(True)
        return True


class Applicant:
    """A connection that records the calls it gets."""

    def __init__(self) -> None:
        self.introduced: list[tuple[str | None]] = []
        self.accepted: list[tuple[int, bool]] = []

    def introduce(self, publisher: Publisher, will: Publication | None) -> None:
        self.publisher = publisher
        self.introduced.append((publisher.principal.identity.user, will))

    def accept(self, keep_alive: int, session_present: bool) -> None:
        self.accepted.append((keep_alive, session_present))


def shake(packet: Connect, gate: TheGate, desk: Desk) -> tuple[Applicant, ConnectRefusal | None]:
    applicant = Applicant()
    refusal = run(connect(cast("Any", applicant), packet, PEER, cast("Gate", gate), cast("Registry", desk)))
    return applicant, refusal


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("client_id", ["a", "ü" * 256, " "])
def test_a_client_id_of_its_own_is_taken_as_it_is(client_id: str, clean: bool) -> None:
    assert choose_client_id(Connect(client_id, clean_session=clean)) == client_id


def test_a_client_without_an_id_gets_one_of_its_own() -> None:
    """3.1.3.1"""
    made = {choose_client_id(Connect("")) for _ in range(100)}
    assert len(made) == 100
    assert all(isinstance(client_id, str) and client_id.startswith("auto-") for client_id in made)


def test_a_session_that_is_kept_needs_a_client_id() -> None:
    """[MQTT-3.1.3-8]"""
    assert choose_client_id(Connect("", clean_session=False)) == ConnectRefusal(
        ConnectCode.IDENTIFIER_REJECTED, "persistent session without a client id"
    )


def test_a_client_id_may_be_too_long() -> None:
    assert choose_client_id(Connect("x" * 257)) == ConnectRefusal(
        ConnectCode.IDENTIFIER_REJECTED, "client id of more than 256 characters"
    )


def test_who_is_let_in() -> None:
    gate = TheGate()
    principal = run(admit(gate, ALICE, None))
    assert principal.identity == Identity("alice")
    assert gate.asked == [ALICE]


def test_wrong_credentials_are_refused() -> None:
    stranger = Credentials("phone", "mallory", b"guess", *PEER)
    assert run(admit(TheGate(), stranger, WILL)) == ConnectRefusal(
        ConnectCode.NOT_AUTHORIZED, "authentication of 'mallory' failed"
    )


def test_a_store_that_fails_is_not_the_clients_fault() -> None:
    assert run(admit(TheGate(broken=True), ALICE, None)) == ConnectRefusal(
        ConnectCode.SERVER_UNAVAILABLE, "the directory is gone"
    )


def test_a_password_that_was_not_looked_at_is_not_called_wrong() -> None:
    class Tired(TheGate):
        async def authenticate(self, credentials: Credentials) -> Principal | None:
            raise TooManyAttemptsError(6.0)

    assert run(admit(Tired(), ALICE, None)) == ConnectRefusal(
        ConnectCode.SERVER_UNAVAILABLE,
        "authentication of 'alice': too many attempts, try again later",
        "connect_rate",
    )


def test_a_will_needs_the_right_to_publish_there() -> None:
    gate = TheGate(refusal=NO)
    assert run(admit(gate, ALICE, WILL)) == ConnectRefusal(
        ConnectCode.NOT_AUTHORIZED, "will on 'groups/team': 'not a member'"
    )
    assert gate.asked == [ALICE, ("alice", "groups/team")]
    assert isinstance(run(admit(TheGate(), ALICE, WILL)), Principal)


def test_long_words_are_cut_for_the_log() -> None:
    will = Publication("t" * 1000, b"", 0, False)
    refusal = run(admit(TheGate(refusal=Refusal("c", 0, "d" * 1000)), ALICE, will))
    assert refusal.reason == f"will on {'t' * 256!r}: {'d' * 512!r}"


def test_a_client_is_introduced_then_attached_then_accepted() -> None:
    desk, gate = Desk(), TheGate()
    packet = Connect("phone", 4, False, 60, "alice", b"secret", WILL)
    applicant, refusal = shake(packet, gate, desk)
    assert refusal is None
    assert gate.asked[0] == ALICE
    assert applicant.introduced == [("alice", WILL)]
    assert desk.attached == [(SessionKey("alice", "phone"), False)]
    assert applicant.accepted == [(60, True)]


def test_an_account_that_changes_meanwhile_is_asked_for_anew() -> None:
    desk, gate = Desk(changes=2), TheGate()
    applicant, refusal = shake(Connect("phone", username="alice", password=b"secret"), gate, desk)
    assert refusal is None
    assert gate.asked == [ALICE] * 3
    assert len(desk.attached) == len(applicant.accepted) == 1


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (Connect("", clean_session=False), ConnectCode.IDENTIFIER_REJECTED),
        (Connect("phone", username="alice", password=b"guess"), ConnectCode.NOT_AUTHORIZED),
    ],
)
def test_who_is_refused_is_not_introduced(packet: Connect, code: ConnectCode) -> None:
    desk = Desk()
    applicant, refusal = shake(packet, TheGate(), desk)
    assert refusal is not None
    assert refusal.code is code
    assert applicant.introduced == []
    assert applicant.accepted == []
    assert desk.attached == []

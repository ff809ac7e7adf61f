"""Requests of WebSocket handshakes: header values are lists of tokens (RFC 6455, 4.2.1)."""

from collections.abc import Sequence

import pytest

from broker.net.upgrade import HandshakeRefusal, check, tokens

USUAL = {
    "upgrade": ["websocket"],
    "connection": ["Upgrade"],
    "sec-websocket-version": ["13"],
    "sec-websocket-protocol": ["mqtt"],
}


class Lines:
    """Header lines. Names are compared without case."""

    def __init__(self, **changed: Sequence[str]) -> None:
        lines = USUAL | {name.replace("_", "-"): list(values) for name, values in changed.items()}
        self._lines = {name.lower(): values for name, values in lines.items()}

    def getall(self, key: str, default: list[str]) -> list[str]:
        return self._lines.get(key.lower()) or default


def status(target: str = "/mqtt", **changed: Sequence[str]) -> int | None:
    refusal = check(target, Lines(**changed))
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        ([""], []),
        (["keep-alive, Upgrade"], ["keep-alive", "Upgrade"]),
        (["keep-alive", "Upgrade"], ["keep-alive", "Upgrade"]),
        ([" a\t,,b ,", "c"], ["a", "b", "c"]),
        (["a b"], ["a b"]),
    ],
)
def test_a_list_is_one_line_or_several(lines: list[str], found: list[str]) -> None:
    assert tokens(Lines(connection=lines), "Connection") == found


def test_the_usual_handshake_is_accepted() -> None:
    assert status() is None


@pytest.mark.parametrize("value", ["upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade,close"])
def test_connection_names_upgrade_in_any_case_and_order(value: str) -> None:
    assert status(connection=[value]) is None


@pytest.mark.parametrize(
    "target", ["/mqtt?", "/mqtt?a=/b?c", "ws://h/mqtt", "wss://h:1/mqtt?a", "HTTP://h/mqtt"]
)
def test_targets_of_the_endpoint(target: str) -> None:
    assert status(target) is None


@pytest.mark.parametrize(
    "target", ["", "*", "/", "/mqtt/", "/MQTT", "mqtt", "http://h", "http://h/a/mqtt", "h:80", "//h/mqtt"]
)
def test_other_targets_are_not_found(target: str) -> None:
    assert status(target) == 404


def test_a_newer_version_is_told_which_one_to_use() -> None:
    """RFC 6455, 4.4"""
    refusal = check("/mqtt", Lines(sec_websocket_version=["14"]))
    assert isinstance(refusal, HandshakeRefusal)
    assert refusal.status == 426
    assert ("Sec-WebSocket-Version", "13") in refusal.headers


def test_two_versions_are_none() -> None:
    assert status(sec_websocket_version=["13", "13"]) == 426


@pytest.mark.parametrize("name", ["upgrade", "connection", "sec-websocket-protocol"])
@pytest.mark.parametrize("values", [[], [""], ["other"], ["mqtt websocket upgrade"]])
def test_a_list_without_the_token_is_refused(name: str, values: list[str]) -> None:
    assert status(**{name: values}) == 400

"""The HTTP API of a running node."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.http_kit import (
    ORIGIN,
    Api,
    _addresses,
    code,
    mqtt,
    mqtt_code,
    new_address,
)
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, publish, subscribe


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = [
        "http.registration=true",
        "http.trusted_proxies=[127.0.0.1]",
        f"http.cors_origins=[{ORIGIN}]",
    ]
    node = Node(tmp_path_factory.mktemp("http"), settings).start()
    yield node
    node.stop()
    assert "Traceback" not in node.log()


@pytest.fixture
def api(shared: Node) -> Iterator[Api]:
    api = Api(shared)
    yield api
    api.client.close()


# --- logging in --------------------------------------------------------------------------


def test_login_gives_a_token_for_mqtt(api: Api) -> None:
    alice = api.node.user("alice")
    answer = api.post("/api/login", {"user_id": alice, "password": password(alice), "device": "phone\n"})
    assert answer.headers["cache-control"] == "no-store"
    pair = answer.json()
    access, refresh = pair.pop("access_token"), pair.pop("refresh_token")
    assert pair == {"token_type": "Bearer", "expires_in": 86400, "user_id": alice, "role": "user"}
    mqtt(api, alice, access).socket.close()
    assert mqtt_code(api, alice, refresh) == 5
    assert mqtt_code(api, api.node.user("bob"), access) == 5


def test_all_wrong_logins_look_the_same(api: Api) -> None:
    alice, disabled = api.node.user("alice"), api.node.user("disabled")
    api.node.call("SetUserDisabled", pb.SetUserDisabledRequest(user_id=disabled, disabled=True))
    answers = [
        api.post("/api/login", {"user_id": user, "password": secret})
        for user, secret in (
            (alice, "wrong"),
            (alice, ""),
            (alice, "\0"),
            ("nobody-here", "wrong"),
            (disabled, password(disabled)),
            ("system", "wrong"),
        )
    ]
    assert {code(answer) for answer in answers} == {(401, "unauthenticated")}
    assert len({answer.text for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


def test_refresh_gives_a_new_pair_once(api: Api) -> None:
    alice = api.node.user("alice")
    first = api.login(alice)
    response = api.post("/api/refresh", {"refresh_token": first["refresh_token"]})
    assert response.status_code == 200
    second = response.json()
    assert set(second) == set(first)
    mqtt(api, alice, second["access_token"]).socket.close()
    for token in (first["refresh_token"], first["access_token"], "x", ""):
        assert code(api.post("/api/refresh", {"refresh_token": token})) == (401, "unauthenticated")
    assert api.post("/api/refresh", {"refresh_token": second["refresh_token"]}).status_code == 200


def test_a_refresh_token_that_was_used_before_a_restart_ends_everything(
    make_node: Callable[..., Node],
) -> None:
    node = make_node().start()
    alice = node.user("alice")
    api = Api(node)
    first = api.login(alice)
    second = api.post("/api/refresh", {"refresh_token": first["refresh_token"]}).json()
    api.client.close()
    node.stop()
    api = Api(node.start())
    with mqtt(api, alice, second["access_token"]) as thief, mqtt(api, alice, password(alice)) as other:
        assert api.post("/api/refresh", {"refresh_token": first["refresh_token"]}).status_code == 401
        assert thief.is_closed()
        other.send(b"\xc0\x00")
        other.expect(13)
    assert mqtt_code(api, alice, second["access_token"]) == 5
    assert api.post("/api/refresh", {"refresh_token": second["refresh_token"]}).status_code == 401
    mqtt(api, alice, api.login(alice)["access_token"]).socket.close()
    api.client.close()


# --- logging out -------------------------------------------------------------------------


def test_logout_ends_the_connections_of_its_token(api: Api) -> None:
    alice = api.node.user("alice")
    phone, laptop = api.login(alice), api.login(alice)
    will = (f"users/{alice}/inbox", b"I am gone", 1, False)
    watcher = mqtt(api, alice, laptop["access_token"])
    watcher.send(subscribe(1, (f"users/{alice}/inbox", 1)))
    watcher.expect(9)
    with RawClient(api.node.port) as ended, mqtt(api, alice, password(alice)) as by_password:
        ended.login("ended", alice, phone["access_token"], will=will)
        started = time.monotonic()
        assert api.logout(phone["access_token"], refresh_token=phone["refresh_token"]) == 204
        assert ended.is_closed()
        assert time.monotonic() - started < 1
        by_password.send(publish(f"users/{alice}/inbox", b"still here", 1, 1))
        by_password.expect(4)
    content = json.loads(watcher.message()[1])["content"]
    assert content == "still here"  # and no will of one who may not speak any more
    watcher.socket.close()
    assert mqtt_code(api, alice, phone["access_token"]) == 5
    assert api.logout(phone["access_token"]) == 401
    refresh = {"refresh_token": phone["refresh_token"]}
    assert code(api.post("/api/refresh", refresh)) == (401, "unauthenticated")
    mqtt(api, alice, laptop["access_token"]).socket.close()


def test_logout_everywhere(api: Api) -> None:
    alice = api.node.user("alice")
    pairs = [api.login(alice) for _ in range(3)]
    by_imctl = api.node.token(alice)
    with ExitStack() as stack:
        tokens = (*(pair["access_token"] for pair in pairs), by_imctl)
        clients = [stack.enter_context(mqtt(api, alice, token)) for token in tokens]
        by_password = stack.enter_context(mqtt(api, alice, password(alice)))
        started = time.monotonic()
        assert api.logout(pairs[0]["access_token"], all=True) == 204
        assert all(client.is_closed() for client in clients)
        assert time.monotonic() - started < 1
        by_password.send(b"\xc0\x00")
        by_password.expect(13)
    for pair in pairs:
        assert mqtt_code(api, alice, pair["access_token"]) == 5
        refresh = {"refresh_token": pair["refresh_token"]}
        assert code(api.post("/api/refresh", refresh)) == (401, "unauthenticated")
    mqtt(api, alice, api.login(alice)["access_token"]).socket.close()


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Bearer x.y.z", "bearer \xff"])
def test_logout_needs_an_access_token(api: Api, header: str) -> None:
    headers = {"authorization": header.encode("latin-1")} if header else {}
    assert code(api.client.post("/api/logout", headers=headers)) == (401, "unauthenticated")


def test_logout_does_not_need_a_body(api: Api) -> None:
    access = api.login(api.node.user("alice"))["access_token"]
    answer = api.client.post("/api/logout", headers={"authorization": f"Bearer {access}"})
    assert (answer.status_code, answer.content) == (204, b"")


# --- registering -------------------------------------------------------------------------


def test_registering(api: Api) -> None:
    name = f"new-{next(_addresses)}"
    body = {"user_id": name, "password": password(name), "name": "Newcomer 你好"}
    answer = api.post("/api/register", body)
    assert (answer.status_code, answer.json()) == (201, {"user_id": name, "role": "user"})
    mqtt(api, name, api.login(name)["access_token"]).socket.close()
    assert code(api.post("/api/register", body)) == (409, "exists")
    for wrong in (
        {"user_id": "no spaces"},
        {"user_id": "x" * 65},
        {"user_id": ""},
        {"user_id": "system"},
        {"password": "abc"},
        {"password": "x" * 1025},
        {"name": "x" * 129},
        {"role": "admin"},
    ):
        body = {"user_id": f"new-{next(_addresses)}", "password": "good enough"} | wrong
        assert code(api.post("/api/register", body)) == (400, "invalid"), wrong


def test_the_id_of_a_removed_account_is_not_given_to_who_registers(api: Api) -> None:
    alice, gone = api.node.user("alice"), api.node.user("gone")
    with mqtt(api, alice, password(alice)) as client:
        client.send(publish(f"users/{gone}/inbox", b"for the first one", 1, 1))
        client.expect(4)
        api.node.call("RemoveUser", pb.RemoveUserRequest(user_id=gone))
        for user in (gone, gone.upper()):
            answer = api.post("/api/register", {"user_id": user, "password": password(gone)})
            assert code(answer) == (409, "exists")
        api.node.call("AddUser", pb.AddUserRequest(user_id=gone, password=password(gone), reuse_id=True))
        with mqtt(api, gone, api.login(gone)["access_token"]) as second:
            second.send(subscribe(1, (f"users/{gone}/inbox", 1)))
            second.expect(9)
            client.send(publish(f"users/{gone}/inbox", b"for the second one", 1, 2))
            assert json.loads(second.message()[1])["content"] == "for the second one"


def test_registration_is_off_by_default(node: Node) -> None:
    for body in ({"user_id": "me", "password": "good enough"}, {}):
        answer = httpx.post(f"{node.http}/api/register", json=body)
        assert code(answer) == (403, "forbidden")


# --- wrong input -------------------------------------------------------------------------

BODIES = {
    "nothing": (b"", 400, "user_id"),
    "no object": (b"[]", 400, "object"),
    "no JSON": (b"user_id=alice", 400, "JSON"),
    "no UTF-8": (b'{"user_id":"\xff","password":"x"}', 400, ""),
    "half a character": (b'{"user_id":"a","password":"\\ud800"}', 400, ""),
    "cut off": (b'{"user_id":"alice"', 400, ""),
    "a field is missing": (b'{"user_id":"alice"}', 400, "password"),
    "a field is unknown": (b'{"user_id":"alice","password":"x","admin":true}', 400, "admin"),
    "a field is no text": (b'{"user_id":"alice","password":1}', 400, "password"),
    "a field is null": (b'{"user_id":null,"password":"x"}', 400, "user_id"),
    "no id": (b'{"user_id":"a b","password":"x"}', 400, "user_id"),
    "a long device": (b'{"user_id":"a","password":"x","device":"%b"}' % (b"d" * 129), 400, "device"),
    "deep": (b'{"user_id":' + b"[" * 15_000, 400, ""),
    "large": (b'{"user_id":"alice","password":"%b"}' % (b"x" * 16_384), 413, "16384"),
}


@pytest.mark.parametrize("name", BODIES)
def test_wrong_bodies(api: Api, name: str) -> None:
    body, status, word = BODIES[name]
    for chunked in (False, True):
        content = iter([body]) if chunked else body
        headers = {"content-type": "application/json; charset=utf-8"}
        answer = api.client.post("/api/login", content=content, headers=headers)
        assert code(answer) == (status, "too_large" if status == 413 else "invalid")
        assert word in answer.json()["error"]["detail"]


def test_wrong_media_types_methods_and_paths(api: Api) -> None:
    body = b'{"user_id":"alice","password":"x"}'
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        answer = api.client.post("/api/login", content=body, headers={"content-type": media})
        assert code(answer) == (415, "unsupported_media_type")
    for method, path in (("GET", "/api/login"), ("PUT", "/api/refresh"), ("POST", "/healthz")):
        answer = api.client.request(method, path)
        assert code(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"]
    for path in ("/", "/api", "/api/login/", "/api/%2e%2e/login", "/API/login", "/\xff"):
        assert code(api.client.post(path)) == (404, "not_found")


# --- limits ------------------------------------------------------------------------------


def from_address(api: Api, user: str, secret: str, address: str) -> httpx.Response:
    body = {"user_id": user, "password": secret}
    return api.client.post("/api/login", json=body, headers={"x-forwarded-for": address})


def test_failures_are_limited_by_user(api: Api) -> None:
    alice = api.node.user("alice")
    home = new_address()
    assert from_address(api, alice, password(alice), home).status_code == 200
    statuses = [from_address(api, alice, "wrong", new_address()).status_code for _ in range(12)]
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429
    refused = from_address(api, alice, password(alice), new_address())
    assert code(refused) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert from_address(api, alice, password(alice), home).status_code == 200
    api.login(api.node.user("bob"))


def test_failures_are_limited_by_address(make_node: Callable[..., Node]) -> None:
    node = make_node("http.failures_per_address=5").start()
    alice = node.user("alice")
    api = Api(node)  # no proxy is trusted here, so that all come from the same address
    for i in range(5):
        assert from_address(api, f"nobody-{i}", "wrong", new_address()).status_code == 401
    answer = from_address(api, alice, password(alice), new_address())
    assert code(answer) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
    assert node.stats()["refused.login_rate"] == 1
    assert node.stats()["refused.login"] == 5
    assert api.client.get("/healthz").status_code == 200
    api.client.close()


def test_where_it_is_stands_in_the_node_file(shared: Node) -> None:
    places = json.loads((shared.data_dir / "node.json").read_bytes())
    assert shared.http == f"http://{places['http']}"
    assert places["listeners"]["http"] == places["http"]


def test_web_pages_of_listed_origins(api: Api, node: Node) -> None:
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = api.client.options("/api/login", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    refused = api.post("/api/login", {}, origin=ORIGIN)
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    for headers, base in (
        (preflight | {"origin": "https://evil.example"}, api.node.http),
        (preflight, node.http),
    ):
        answer = httpx.options(f"{base}/api/login", headers=headers)
        assert answer.status_code in (400, 405)
        assert "access-control-allow-origin" not in answer.headers

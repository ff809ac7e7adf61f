"""Health and readiness over HTTP."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import grpc
import httpx
import pytest

from tests.integration.http_kit import (
    Api,
    code,
    mqtt,
    mqtt_code,
)
from tests.integration.node import Node, password, wait_for

# --- the node ----------------------------------------------------------------------------


def test_health_and_readiness(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    with httpx.Client(base_url=node.http) as client:
        for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
            answer = client.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": status})
            assert client.head(path).content == b""
        with closing(sqlite3.connect(node.data_dir / "directory.db")) as database, database:
            database.execute("ALTER TABLE users RENAME TO elsewhere")
        wait_for(lambda: client.get("/readyz").status_code == 503, "a look at the directory")
        answer = client.get("/readyz")
        assert code(answer) == (503, "unavailable")
        assert "directory: failed" in answer.json()["error"]["detail"]
        login = client.post("/api/login", json={"user_id": "alice", "password": "x"})
        assert code(login) == (503, "unavailable")
        assert login.headers["retry-after"]
        assert client.get("/healthz").status_code == 200


def test_token_keys_that_cannot_be_read_for_a_while(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    alice = node.user("alice")
    api = Api(node)
    pair = api.login(alice)
    keys = node.data_dir / "token_keys.json"
    written = keys.read_text()
    keys.write_text("{")
    answers = [
        api.post("/api/login", {"user_id": alice, "password": password(alice)}),
        api.post("/api/refresh", {"refresh_token": pair["refresh_token"]}),
    ]
    assert [code(answer) for answer in answers] == [(503, "unavailable")] * 2
    assert mqtt_code(api, alice, pair["access_token"]) == 3
    with pytest.raises(grpc.RpcError) as refusal:
        node.token(alice)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    keys.write_text(written)
    mqtt(api, alice, pair["access_token"]).socket.close()
    assert api.post("/api/refresh", {"refresh_token": pair["refresh_token"]}).status_code == 200
    api.client.close()
    assert "Traceback" not in node.log()


def test_not_ready_while_nothing_can_be_stored(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    with httpx.Client(base_url=node.http) as client:
        assert client.get("/readyz").status_code == 200
        with closing(sqlite3.connect(node.data_dir / "parley.db", isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            wait_for(lambda: client.get("/readyz").status_code == 503, "a look at the store")
            answer = client.get("/readyz")
            assert "message store (writing)" in answer.json()["error"]["detail"]
            blocker.execute("ROLLBACK")
        wait_for(lambda: client.get("/readyz").status_code == 200, "the store to be written again")

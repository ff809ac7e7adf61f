"""A client of a node's HTTP API."""

import itertools

import httpx

from tests.integration.node import Node, password
from tests.integration.raw import RawClient, connect

ORIGIN = "https://chat.example.org"
_addresses = itertools.count(1)


class Api:
    """A node with open registration, and a client that seems to come from an address of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.client = httpx.Client(base_url=node.http, headers={"x-forwarded-for": new_address()})

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers=headers)

    def login(self, user: str) -> dict[str, str]:
        response = self.post("/api/login", {"user_id": user, "password": password(user)})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def logout(self, access: str, **body: object) -> int:
        return self.post("/api/logout", body, authorization=f"Bearer {access}").status_code


def new_address() -> str:
    number = next(_addresses)
    return f"198.51.{number >> 8}.{number & 255}"


def code(response: httpx.Response) -> tuple[int, str]:
    """The status and the error code. Checks the rest of the error body (docs/http.md, "Errors")."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "detail"}
    assert body["error"]["detail"]
    return response.status_code, body["error"]["code"]


def mqtt(api: Api, user: str, secret: str) -> RawClient:
    client = RawClient(api.node.port)
    client.login(f"c{next(_addresses)}", user, secret)
    return client


def mqtt_code(api: Api, user: str, secret: str) -> int:
    """The code a CONNECT is answered with."""
    with RawClient(api.node.port) as client:
        client.send(connect("c", user, secret))
        return client.expect(2).body[1]

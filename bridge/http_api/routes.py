"""The routes of the HTTP API as an ASGI application."""

from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from bridge.http_api import bodies
from bridge.http_api.errors import answer, failed, guarded
from bridge.http_api.logins import Logins
from bridge.http_api.readiness import Readiness
from broker.ports import DirectoryError

_CORS_SECONDS = 600
"""For how long browsers may cache the answer to a preflight request."""


class Routes:
    """The endpoints, one method for each route."""

    def __init__(self, logins: Logins, readiness: Readiness) -> None:
        self._logins = logins
        self._readiness = readiness

    async def login(self, request: Request) -> Response:
        """`POST /api/login`: 200 and a `Pair` of tokens."""
        body = await bodies.read(request, bodies.Login)
        return answer(await self._logins.login(body.user_id, body.password, _address(request), body.device))

    async def refresh(self, request: Request) -> Response:
        """`POST /api/refresh`: 200 and a new `Pair` of tokens."""
        body = await bodies.read(request, bodies.Refresh)
        return answer(await self._logins.refresh(body.refresh_token))

    async def logout(self, request: Request) -> Response:
        """`POST /api/logout`: 204."""
        token = _bearer(request)
        body = await bodies.read(request, bodies.Logout)
        await self._logins.logout(token, body.refresh_token, body.all)
        return Response(status_code=204)

    async def register(self, request: Request) -> Response:
        """`POST /api/register`: 201, the user's id and role."""
        self._logins.need_registration()  # before the body is read
        body = await bodies.read(request, bodies.Register)
        account = await self._logins.register(body.user_id, body.password, body.name, _address(request))
        return answer({"user_id": account.user_id, "role": account.role}, 201)

    async def health(self, _request: Request) -> Response:
        """`GET /healthz`: 200 while the node's event loop runs."""
        return answer({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """`GET /readyz`: 200 if all stores answer, else 503. The HTTP server starts last, so whenever this
        answers, all other ports are open."""
        failures = await self._readiness.failures()
        if failures:
            raise DirectoryError("unavailable", "; ".join(failures))
        return answer({"status": "ready"})


def application(logins: Logins, readiness: Readiness, cors_origins: Sequence[str]) -> Starlette:
    """The ASGI application. Web pages of the `cors_origins` may use it."""
    routes = Routes(logins, readiness)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after"],
        max_age=_CORS_SECONDS,
    )
    return _Application(
        routes=[
            Route("/api/login", guarded(routes.login), methods=["POST"]),
            Route("/api/refresh", guarded(routes.refresh), methods=["POST"]),
            Route("/api/logout", guarded(routes.logout), methods=["POST"]),
            Route("/api/register", guarded(routes.register), methods=["POST"]),
            Route("/healthz", guarded(routes.health)),
            Route("/readyz", guarded(routes.ready)),
        ],
        middleware=[cors] if cors_origins else [],
        exception_handlers={HTTPException: failed},  # unknown paths and wrong methods
    )


class _Application(Starlette):
    """Starlette without its redirects from `/path/` to `/path`: the API has no such paths."""

    def __init__(self, *, routes: Sequence[Route], **options: Any) -> None:
        super().__init__(**options)
        self.router = Router(routes, redirect_slashes=False)


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise DirectoryError("unauthenticated", "the header Authorization: Bearer <access token> is missing")
    return token.strip()

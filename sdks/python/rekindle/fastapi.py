"""Sessions in FastAPI, Starlette and what else speaks ASGI.

>>> sessions = Sessions(app, rekindle.web(development=True))
>>> @app.get("/me")
... async def me(session: Annotated[AsyncSession, Depends(sessions.required)]):
...     return {"user": session.user_id}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import _native
from .errors import RekindleError
from .shapes import Tokens, Trust
from .web import Answer, AsyncSession, AsyncVisit, AsyncWeb, Refusal, Web, answer_of, merged

_VISIT = "rekindle"
_WANTED = frozenset(name.encode() for name in _native.Site.headers())


class SessionMiddleware:
    """Cookies, CSRF, and the session's own routes, for every request of an ASGI application; `scope["rekindle"]` is the visit."""

    def __init__(self, app: ASGIApp, web: AsyncWeb | Web) -> None:
        self._app = app
        self._web = web.aio if isinstance(web, Web) else web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request, or a WebSocket, whose headers have a session, too."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        visit = scope[_VISIT] = await self._visit(scope)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in merged(visit.headers(), headers.__contains__):
                    headers.append(name, value)
            await send(message)

        async def body() -> bytes:
            given = b""
            while len(given) <= visit.longest_body:
                message = await receive()
                given += message.get("body", b"")
                if not message.get("more_body", False):
                    break
            return given[: visit.longest_body + 1]

        own = await visit.own(body)
        await (self._app if own is None else _response(own))(scope, receive, sending)

    async def _visit(self, scope: Scope) -> AsyncVisit:
        # Their names are in small letters.
        wanted = (pair for pair in scope["headers"] if pair[0] in _WANTED)
        headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in wanted)
        client = scope.get("client")
        # A WebSocket begins with a request that reads; its scope does not say so.
        method = scope.get("method", "GET")
        return await self._web.visit(method=method, path=scope["path"], headers=headers, ip=client[0] if client else None)


class Sessions:
    """The middleware of an application, the answers to its errors, and dependencies for its handlers."""

    def __init__(self, app: Starlette, web: AsyncWeb | Web) -> None:
        app.add_middleware(SessionMiddleware, web=web)
        app.add_exception_handler(Refusal, _answered)
        app.add_exception_handler(RekindleError, _answered)

    async def required(self, connection: HTTPConnection) -> AsyncSession:
        """Dependency: the request's session. Refusal, which answers the request: there is no good one."""
        return await visit_of(connection).session()

    async def optional(self, connection: HTTPConnection) -> AsyncSession | None:
        """Dependency: the same, or None where there is none, or its token has expired."""
        return await visit_of(connection).session_if_any()

    def requiring(
        self, *, trust: Trust | None = None, mint: bool = False
    ) -> Callable[[HTTPConnection], Awaitable[AsyncSession]]:
        """A dependency like `required`, trusted otherwise, or where an expired access token does not matter."""

        async def required(connection: HTTPConnection) -> AsyncSession:
            return await visit_of(connection).session(trust=trust, mint=mint)

        return required

    async def sign_in(self, request: Request, **start: Any) -> Tokens:
        """Starts a session for the request's client, once you have checked who that is: `rekindle.AsyncVisit.sign_in`."""
        return await visit_of(request).sign_in(**start)


def visit_of(connection: HTTPConnection) -> AsyncVisit:
    """The request, as sessions see it. RuntimeError without the middleware."""
    visit = connection.scope.get(_VISIT)
    if not isinstance(visit, AsyncVisit):
        raise RuntimeError("the application has no sessions: add rekindle.fastapi.Sessions(app, web)")
    return visit


async def _answered(_: Request, error: Exception) -> Response:
    answer = answer_of(error)
    if answer is None:
        raise error
    return _response(answer)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = [
        *(pair for pair in response.raw_headers if pair[0] == b"content-length"),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers),
    ]
    return response

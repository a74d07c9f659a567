"""What happens to every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from http.cookies import Morsel
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ..web import Answer, AsyncVisit, Headers, Visit, answer_of, merged
from .conf import web

current: ContextVar[HttpRequest | None] = ContextVar("rekindle_request", default=None)
"""The request that is served, for functions that are not told of it."""


class SessionMiddleware:
    """Cookies, CSRF, and the session's own routes, for every request: first of MIDDLEWARE. `request.rekindle` is the visit."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serves a request."""
        if self._is_async:
            return self._later(request)
        visit = visit_of(request)
        own = visit.own(lambda: request.read(visit.longest_body + 1))
        serving = current.set(request)
        try:
            response = self._get_response(request) if own is None else response_of(own)
        finally:
            current.reset(serving)
        return give(response, visit.headers())

    async def _later(self, request: HttpRequest) -> HttpResponseBase:
        visit = await avisit_of(request)

        async def body() -> bytes:
            return bytes(request.read(visit.longest_body + 1))

        own = await visit.own(body)
        serving = current.set(request)
        try:
            response = await self._get_response(request) if own is None else response_of(own)
        finally:
            current.reset(serving)
        return give(response, visit.headers())

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answers the errors of sessions."""
        answer = answer_of(exception)
        return None if answer is None else response_of(answer)


def visit_of(request: HttpRequest) -> Visit:
    """A request, as sessions see it, for code that blocks."""
    visit = getattr(request, "rekindle", None)
    if visit is None:
        visit = request.rekindle = web().visit(**_described(request))
    # A view that blocks in an application that awaits.
    return visit if isinstance(visit, Visit) else visit.blocking


async def avisit_of(request: HttpRequest) -> AsyncVisit:
    """The same for code that awaits."""
    visit = getattr(request, "rekindle", None)
    if visit is None:
        visit = request.rekindle = await web().aio.visit(**_described(request))
    return visit if isinstance(visit, AsyncVisit) else visit.aio


def _described(request: HttpRequest) -> dict[str, Any]:
    return {
        "method": request.method or "",
        "path": request.path,
        "headers": request.headers.items(),
        "ip": request.META.get("REMOTE_ADDR"),
    }


def response_of(answer: Answer) -> HttpResponse:
    """An answer of ours, as Django's."""
    response = HttpResponse(answer.body, status=answer.status)
    del response.headers["content-type"]
    return give(response, answer.headers)


def give(response: Any, headers: Headers) -> Any:
    """Adds to a response what it does not have."""
    has = response.headers.__contains__
    for name, value in merged(headers, has):
        if name == "set-cookie":
            cookie = _Line(value)
            response.cookies[cookie.key] = cookie
        elif name == "vary" and has(name):
            response.headers[name] = f"{response.headers[name]}, {value}"
        else:
            response.headers[name] = value
    return response


class _Line(Morsel):  # type: ignore[type-arg]
    """A cookie as Rust wrote it, with attributes that this version of Python may not know."""

    def __init__(self, line: str) -> None:
        super().__init__()
        name, _, rest = line.partition("=")
        value = rest.partition(";")[0]
        self.set(name, value, value)
        self._line = line

    def OutputString(self, attrs: Any = None) -> str:
        return self._line

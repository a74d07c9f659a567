"""What views call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from ..shapes import Tokens, Trust
from ..web import AsyncSession, Session
from .middleware import avisit_of, visit_of


def session(request: HttpRequest, *, trust: Trust | None = None, mint: bool = False) -> Session:
    """A request's session. Refusal, which the middleware answers: there is no good one."""
    return visit_of(_plain(request)).session(trust=trust, mint=mint)


def session_if_any(request: HttpRequest, *, trust: Trust | None = None, mint: bool = False) -> Session | None:
    """The same, or None where there is none, or its token has expired."""
    return visit_of(_plain(request)).session_if_any(trust=trust, mint=mint)


def sign_in(request: HttpRequest, **start: Any) -> Tokens:
    """Starts a session for a request's client, once you have checked who that is: `rekindle.Visit.sign_in`. The response has its cookies."""
    return visit_of(_plain(request)).sign_in(**start)


async def asession(request: HttpRequest, *, trust: Trust | None = None, mint: bool = False) -> AsyncSession:
    """`session` for views that await."""
    return await (await avisit_of(_plain(request))).session(trust=trust, mint=mint)


async def asession_if_any(request: HttpRequest, *, trust: Trust | None = None, mint: bool = False) -> AsyncSession | None:
    """`session_if_any` for views that await."""
    return await (await avisit_of(_plain(request))).session_if_any(trust=trust, mint=mint)


async def asign_in(request: HttpRequest, **start: Any) -> Tokens:
    """`sign_in` for views that await."""
    return await (await avisit_of(_plain(request))).sign_in(**start)


def session_required(view: Callable[..., Any] | None = None, /, *, trust: Trust | None = None, mint: bool = False) -> Any:
    """Decorator: only requests with a session reach the view, as `request.rekindle_session`; for views that block and views that await."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def awaited(request: Any, *args: Any, **kwargs: Any) -> Any:
                request.rekindle_session = await asession(request, trust=trust, mint=mint)
                return await view(request, *args, **kwargs)

            return awaited

        @functools.wraps(view)
        def decorated(request: Any, *args: Any, **kwargs: Any) -> Any:
            request.rekindle_session = session(request, trust=trust, mint=mint)
            return view(request, *args, **kwargs)

        return decorated

    return decorate if view is None else decorate(view)


def _plain(request: Any) -> HttpRequest:
    """Django's own request, which Django REST framework wraps."""
    return getattr(request, "_request", request)

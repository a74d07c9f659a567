"""Sessions in Flask.

>>> sessions = Sessions(app, rekindle.web(development=True))
>>> @app.get("/me")
... @sessions.required
... def me():
...     return {"user": sessions.session().user_id}
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Flask, Response, g, request

from .errors import RekindleError
from .shapes import Tokens, Trust
from .web import Answer, Refusal, Session, Visit, Web, answer_of, merged

F = TypeVar("F", bound=Callable[..., Any])


class Sessions:
    """The extension: cookies, CSRF, and the session's own routes, for every request of an application."""

    def __init__(self, app: Flask | None = None, web: Web | None = None) -> None:
        self._web: Web
        if app is not None and web is not None:
            self.init_app(app, web)

    def init_app(self, app: Flask, web: Web) -> None:
        """Puts it before all of an application's own functions that are registered later."""
        self._web = web
        app.extensions["rekindle"] = self
        app.before_request(self._before)
        app.after_request(self._after)
        app.register_error_handler(Refusal, _answered)
        app.register_error_handler(RekindleError, _answered)

    @property
    def visit(self) -> Visit:
        """The request, as sessions see it."""
        if "rekindle" not in g:
            g.rekindle = self._web.visit(
                method=request.method, path=request.path, headers=request.headers, ip=request.remote_addr
            )
        return cast(Visit, g.rekindle)

    def session(self, *, trust: Trust | None = None, mint: bool = False) -> Session:
        """The request's session. Refusal, which answers the request: there is no good one."""
        return self.visit.session(trust=trust, mint=mint)

    def session_if_any(self, *, trust: Trust | None = None, mint: bool = False) -> Session | None:
        """The same, or None where there is none, or its token has expired."""
        return self.visit.session_if_any(trust=trust, mint=mint)

    def sign_in(self, **start: Any) -> Tokens:
        """Starts a session for the request's client, once you have checked who that is: `rekindle.Visit.sign_in`."""
        return self.visit.sign_in(**start)

    def required(self, view: F | None = None, /, *, trust: Trust | None = None, mint: bool = False) -> Any:
        """Decorator: only requests with a session reach the view; `session()` has it."""

        def decorate(view: F) -> F:
            @functools.wraps(view)
            def decorated(*args: Any, **kwargs: Any) -> Any:
                g.rekindle_session = self.session(trust=trust, mint=mint)
                return view(*args, **kwargs)

            return cast(F, decorated)

        return decorate if view is None else decorate(view)

    def _before(self) -> Response | None:
        visit = self.visit
        own = visit.own(lambda: request.stream.read(visit.longest_body + 1))
        return None if own is None else _response(own)

    def _after(self, response: Response) -> Response:
        for name, value in merged(self.visit.headers(), response.headers.__contains__):
            response.headers.add(name, value)
        return response


def _answered(error: Exception) -> Response:
    answer = answer_of(error)
    if answer is None:
        raise error
    return _response(answer)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    # It brings its own type.
    del response.headers["content-type"]
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response

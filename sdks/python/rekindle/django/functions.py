"""Sessions by the function names that code for earlier session libraries has, for Django's requests and responses, DRF's among them.

They speak of the sessions of settings.REKINDLE; `rekindle.django.SessionMiddleware` must be installed. Exceptions are those of
`rekindle.exceptions`. What they give to the client, the response that they are called with carries.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from django.http import HttpRequest, HttpResponse

from .. import functions
from ..errors import OpenError, RekindleError
from ..exceptions import RekindleGeneralException, RekindleTokenTheftException, exception_of
from ..shapes import Json
from ..web import Headers, Refusal, Visit
from . import conf
from .middleware import current, give, visit_of
from .views import _plain

P = ParamSpec("P")
T = TypeVar("T")


class Session:
    """A session, in the names of earlier libraries."""

    def __init__(self, handle: str, user_id: str, jwt_payload: Json, visit: Visit, response: HttpResponse) -> None:
        self.__handle = handle
        self.__user_id = user_id
        self.__jwt_payload = jwt_payload
        self.__visit = visit
        self.__response = response

    def get_handle(self) -> str:
        """Its handle."""
        return self.__handle

    def get_user_id(self) -> str:
        """Whose it is."""
        return self.__user_id

    def get_jwt_payload(self) -> Json:
        """Its claims."""
        return self.__jwt_payload

    def revoke_session(self) -> bool:
        """Ends it, and takes the cookies back. General."""
        revoked = revoke_session(self.__handle)
        give(self.__response, self.__visit.cleared())
        return revoked

    def get_session_info(self) -> Json:
        """The application's data. General, Unauthorized."""
        return get_session_info(self.__handle)

    def update_session_info(self, session_info: Json) -> None:
        """Puts other data in the place of what was there. General, Unauthorized."""
        update_session_info(self.__handle, session_info)


def _with_settings(work: Callable[P, T]) -> Callable[P, T]:
    """A function of `rekindle.functions`, about the sessions of settings.REKINDLE."""

    @functools.wraps(work)
    def configured(*args: P.args, **kwargs: P.kwargs) -> T:
        functions.init(conf.rekindle(), web=conf.web())
        return work(*args, **kwargs)

    return configured


def create_new_session(
    response: HttpResponse, user_id: str | int, jwt_payload: Json | None = None, session_info: Json | None = None
) -> Session:
    """Starts a session for the client of the present request. General."""
    request = current.get()
    if request is None:
        raise RekindleGeneralException("put rekindle.django.SessionMiddleware first in settings.MIDDLEWARE")
    visit = visit_of(request)
    try:
        tokens = visit.sign_in(user_id=functions.user_of(user_id), claims=jwt_payload or {}, data=session_info or {})
    except (RekindleError, OpenError) as error:
        raise exception_of(error) from error
    give(response, visit.taken())
    return Session(tokens.session.id, tokens.session.user_id, tokens.session.claims, visit, response)


def get_session(request: HttpRequest, response: HttpResponse, enable_csrf_protection: bool = True) -> Session:
    """The session of a request. With cookies, requests that change something are checked to come from our own pages, whatever the last argument
    says. General, Unauthorized (the cookies are taken back), TryRefreshToken."""
    visit = visit_of(_plain(request))
    try:
        session = visit.session()
    except Refusal as refusal:
        give(response, _cookies(refusal.answer.headers))
        raise exception_of(RekindleError(refusal.code, refusal.status, str(refusal))) from refusal
    except (RekindleError, OpenError) as error:
        raise exception_of(error) from error
    return Session(session.id, session.user_id, session.claims, visit, response)


def refresh_session(request: HttpRequest, response: HttpResponse) -> Session:
    """Rotates the refresh token of a request. To be called by one POST route only. General, Unauthorized, TokenTheft: the session is over, and the
    cookies are taken back."""
    rekindle, visit = conf.rekindle(), visit_of(_plain(request))
    try:
        answer = visit.refresh()
        give(response, [pair for pair in answer.headers if pair[0] not in ("content-type", "www-authenticate")])
        said = json.loads(answer.body)
        if answer.status != 200:
            error = RekindleError(said["code"], answer.status, said.get("detail", ""), session_id=said.get("session_id"))
            if error.code == "token_theft_detected" and error.session_id:
                # A browser is not told whose session it was; the application is.
                raise RekindleTokenTheftException(rekindle.read(error.session_id).user_id, error.session_id) from error
            raise exception_of(error) from error
        return Session(said["session_id"], said["user_id"], rekindle.read(said["session_id"]).claims, visit, response)
    except (RekindleError, OpenError) as error:
        raise exception_of(error) from error


revoke_session = _with_settings(functions.revoke_session)
revoke_all_sessions_for_user = _with_settings(functions.revoke_all_sessions_for_user)
get_all_session_handles_for_user = _with_settings(functions.get_all_session_handles_for_user)
get_session_info = _with_settings(functions.get_session_info)
update_session_info = _with_settings(functions.update_session_info)


def set_headers_for_options_api(response: HttpResponse) -> None:
    """For the answer to a preflight: another origin's script may send and read the session's headers. (The middleware answers those of
    settings.REKINDLE's ORIGINS by itself.)"""
    before = response.headers.get("Access-Control-Allow-Headers")
    response.headers["Access-Control-Allow-Headers"] = ", ".join(filter(None, [before, _SENT]))
    response.headers["Access-Control-Allow-Credentials"] = "true"


_SENT = "rekindle-proof, rekindle-request, rekindle-mode, anti-csrf"


def _cookies(headers: Headers) -> Headers:
    return [pair for pair in headers if pair[0] == "set-cookie"]


"""Sessions by the function names that code for earlier session libraries has, without a framework. They block.

Call `init` once. Tokens come as `{"value": …, "expires_at": …}`, in seconds since 1970. Exceptions are those of `rekindle.exceptions`.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, ParamSpec, TypeVar

from .errors import OpenError, RekindleError
from .exceptions import (
    RekindleGeneralException,
    RekindleTryRefreshTokenException,
    RekindleUnauthorizedException,
    exception_of,
)
from .handle import Rekindle
from .shapes import Json, SessionInfo, Tokens
from .web import Web

P = ParamSpec("P")
T = TypeVar("T")

_opened: tuple[Rekindle, Web, bool] | None = None


def init(rekindle: Rekindle, *, csrf_key: bytes | None = None, web: Web | None = None) -> None:
    """Which sessions these functions speak of: `Rekindle.embedded(…)` or `Rekindle.remote(…)`. A second call does nothing.

    csrf_key: at least 32 bytes; sessions then have a token against CSRF.
    """
    global _opened
    if _opened is None:
        _opened = (rekindle, web or rekindle.web(csrf_key=csrf_key), csrf_key is not None)


def opened() -> tuple[Rekindle, Web, bool]:
    """What `init` was given: the handle, its web, and whether there are tokens against CSRF."""
    if _opened is None:
        raise RekindleGeneralException("call `init` before any other function")
    return _opened


def _raising(work: Callable[P, T]) -> Callable[P, T]:
    """With its errors as the exceptions of this module."""

    @functools.wraps(work)
    def raising(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except (RekindleError, OpenError) as error:
            raise exception_of(error) from error

    return raising


@_raising
def create_new_session(user_id: str | int, jwt_payload: Json | None = None, session_info: Json | None = None) -> dict[str, Any]:
    """Starts a session: `session`, `access_token`, `refresh_token`, `id_refresh_token` and `anti_csrf_token`. General."""
    tokens = opened()[0].start(user_id=user_of(user_id), claims=jwt_payload or {}, data=session_info or {})
    return _given(tokens, "")


def get_session(access_token: str, anti_csrf_token: str | Literal[False] | None) -> dict[str, Any]:
    """The session of an access token: `session`, and `new_access_token`, which is None. `anti_csrf_token` False: not checked. General,
    Unauthorized, TryRefreshToken."""
    if anti_csrf_token is None:
        raise RekindleGeneralException("give an anti-CSRF token, or False not to check it")
    rekindle, web, has_csrf = opened()
    try:
        says = rekindle.verify(access_token)
    except (RekindleError, OpenError) as error:
        raise exception_of(error, RekindleTryRefreshTokenException) from error
    if has_csrf and anti_csrf_token is not False and not web.csrf_matches(anti_csrf_token, says.session_id, says.generation):
        raise RekindleTryRefreshTokenException("the anti-CSRF token is not the one of this access token")
    return {"session": _session(says.session_id, says.user_id, says.claims), "new_access_token": None}


@_raising
def refresh_session(refresh_token: str) -> dict[str, Any]:
    """New tokens for a refresh token: as `create_new_session`, with names that begin with `new_`. General, Unauthorized, TokenTheft."""
    return _given(opened()[0].refresh(refresh_token), "new_")


@_raising
def revoke_all_sessions_for_user(user_id: str | int) -> int:
    """Ends all of a user's sessions; how many that were. General."""
    return opened()[0].revoke_user(user_of(user_id))


@_raising
def get_all_session_handles_for_user(user_id: str | int) -> list[str]:
    """The handles of a user's active sessions. General."""
    handles: list[str] = []
    after = None
    while True:
        page = opened()[0].list(user_id=user_of(user_id), state="active", limit=200, after=after)
        handles.extend(session.id for session in page.sessions)
        after = page.next
        if after is None:
            return handles


@_raising
def revoke_session(session_handle: str) -> bool:
    """Whether a session was there and active, and is over now. General."""
    try:
        active = opened()[0].read(session_handle).state == "active"
    except RekindleError as error:
        if error.code in ("session_not_found", "invalid_request"):
            return False
        raise
    if active:
        opened()[0].revoke(session_handle)
    return active


@_raising
def get_session_info(session_handle: str) -> Json:
    """The application's data of an active session. General, Unauthorized."""
    return _active(session_handle).data


@_raising
def update_session_info(session_handle: str, session_info: Json) -> None:
    """Puts other data in the place of what was there. General, Unauthorized."""
    # A patch leaves what it does not name: what is to go is named as None. Whoever writes in between is read again.
    while True:
        session = _active(session_handle)
        gone = dict.fromkeys(session.data)
        try:
            opened()[0].patch(session_handle, data={**gone, **session_info}, if_version=session.version)
            return
        except RekindleError as error:
            if error.code != "version_mismatch":
                raise


@_raising
def remove_expired_tokens() -> int:
    """Removes what is over from the store; how many rows that were. General."""
    return opened()[0].sweep()


def _active(session_handle: str) -> SessionInfo:
    session = opened()[0].read(session_handle)
    if session.state != "active":
        raise RekindleUnauthorizedException("the session is over")
    return session


def user_of(user_id: str | int) -> str:
    """A user's id, as a text. General."""
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)):
        raise RekindleGeneralException(f"a user id is a text or a number, not {type(user_id).__name__}")
    return str(user_id)


def _session(handle: str, user_id: str, claims: Json) -> dict[str, Any]:
    return {"handle": handle, "user_id": user_id, "jwt_payload": claims}


def _given(tokens: Tokens, prefix: str) -> dict[str, Any]:
    def token(value: str, expires: datetime) -> dict[str, Any]:
        return {"value": value, "expires_at": math.floor(expires.timestamp())}

    session = tokens.session
    return {
        "session": _session(session.id, session.user_id, session.claims),
        f"{prefix}access_token": token(tokens.access_token, tokens.access_token_expires_at),
        f"{prefix}refresh_token": token(tokens.refresh_token, tokens.refresh_token_expires_at),
        f"{prefix}id_refresh_token": token(str(uuid.uuid4()), tokens.refresh_token_expires_at),
        f"{prefix}anti_csrf_token": opened()[1].csrf_token(session.id, session.generation),
    }

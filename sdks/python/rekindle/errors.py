"""Errors, with the codes of the API."""

from __future__ import annotations

import json
from typing import Any

from ._native import NativeError

_TERMINAL = frozenset({"session_expired", "session_revoked", "token_theft_detected"})
_TRANSIENT = frozenset({"unavailable", "rate_limited"})


class RekindleError(Exception):
    """Why something was not done. It never holds a token.

    `code` is one of docs/API.md, `status` the HTTP status that goes with it, `detail` says what was wrong and what to do. What the code is
    about is there under the API's names, as far as it is known: of a theft `session_id` and `user_id`.
    """

    code: str
    status: int
    detail: str
    session_id: str | None
    user_id: str | None
    retry_after: int | None

    def __init__(self, code: str, status: int, detail: str, **about: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.detail = detail
        self.about: dict[str, Any] = about

    def __getattr__(self, name: str) -> Any:
        if name in ("session_id", "user_id", "retry_after") or name in self.__dict__.get("about", ()):
            return self.__dict__["about"].get(name)
        raise AttributeError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_made, (self.code, self.status, self.detail, self.about))

    @property
    def is_terminal(self) -> bool:
        """Whether the session is over: only then does a client forget what belongs to it."""
        return self.code in _TERMINAL

    @property
    def is_transient(self) -> bool:
        """Whether the same may succeed later, because nothing was decided."""
        return self.code in _TRANSIENT


class OpenError(Exception):
    """There is no engine, or no way to a server: a store that cannot be reached, master secrets that are not there."""


def told(error: NativeError) -> RekindleError | OpenError:
    """An error of the native half, as one of ours."""
    text = str(error)
    if not text.startswith("{"):
        return OpenError(text)
    return _made_of(json.loads(text))


def _made_of(said: dict[str, Any]) -> RekindleError:
    return RekindleError(said.pop("code"), said.pop("status"), said.pop("detail"), **said)


def _made(code: str, status: int, detail: str, about: dict[str, Any]) -> RekindleError:
    return RekindleError(code, status, detail, **about)

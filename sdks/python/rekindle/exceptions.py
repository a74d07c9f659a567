"""The exceptions of `rekindle.functions` and `rekindle.django.functions`."""

from __future__ import annotations

from .errors import OpenError, RekindleError


class RekindleException(Exception):
    """Any of them; its cause, where there is one, is the error that says more."""


class RekindleGeneralException(RekindleException):
    """Something is out of order: a store that does not answer, a wrong argument."""


class RekindleUnauthorizedException(RekindleException):
    """There is no session, or it is over: the user has to sign in."""


class RekindleTryRefreshTokenException(RekindleException):
    """The access token has expired, or is none: refresh the session, then ask again."""


class RekindleTokenTheftException(RekindleException):
    """A refresh token was used by two. The session is over already."""

    def __init__(self, user_id: str | None, session_handle: str | None) -> None:
        super().__init__("a refresh token was used by two")
        self._user_id = user_id
        self._session_handle = session_handle

    def get_user_id(self) -> str | None:
        """Whose session it was."""
        return self._user_id

    def get_session_handle(self) -> str | None:
        """Its handle."""
        return self._session_handle


# Codes that mean that a user has to sign in.
_OVER = frozenset({"session_revoked", "session_expired", "session_not_found", "token_scope_mismatch", "conflict"})


def exception_of(
    error: RekindleError | OpenError, malformed: type[RekindleException] = RekindleUnauthorizedException
) -> RekindleException:
    """An error of a handle, as one of these; `malformed` says what a damaged token means."""
    if isinstance(error, OpenError):
        return RekindleGeneralException(str(error))
    if error.code == "token_theft_detected":
        return RekindleTokenTheftException(error.user_id, error.session_id)
    if error.code == "access_token_expired":
        return RekindleTryRefreshTokenException(error.detail)
    if error.code == "token_malformed":
        return malformed(error.detail)
    return (RekindleUnauthorizedException if error.code in _OVER else RekindleGeneralException)(error.detail)

"""`rekindle.sessions`: the shapes of SDKs whose tokens are `<tag>:<token>`, and that name product and environment in each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .errors import OpenError, RekindleError
from .shapes import Json, Proof, page_of, time_of, to_json, tokens_of
from .ways import Awaiting, Blocking, Call, method, read

if TYPE_CHECKING:
    from .handle import AsyncRekindle, Rekindle


@dataclass(frozen=True)
class Started:
    """Tokens with their tags."""

    token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    session_id: str
    expires_at: datetime
    refresh_expires_at: datetime


@dataclass(frozen=True)
class Verdict:
    """Whether a token is good: its session's data, or the code that says why not."""

    valid: bool
    session_id: str | None = None
    expires_at: datetime | None = None
    data: Json | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Active:
    """An active session."""

    session_id: str
    start_at: datetime
    end_at: datetime
    active: bool


class _Placed(Call[Any]):
    """A call of the sessions of another place."""

    def __init__(self, of: Any, begin: Callable[[Any], Any], shape: Callable[[Any], Any], failed: Any = None) -> None:
        super().__init__(begin, shape, failed)
        self.of = of


class _Sessions:
    def __init__(self, rekindle: Rekindle | AsyncRekindle) -> None:
        self._rekindle = rekindle
        self._others: dict[tuple[str | None, ...], Rekindle | AsyncRekindle] = {}

    @method
    def start(
        self,
        *,
        data: Json,
        product: str | None = None,
        env: str | None = None,
        tag: str | None = None,
        identifier: str | None = None,
        cache: str | None = None,
        claims: Json | None = None,
        expires_in: int | None = None,
    ) -> Call[Started]:
        """Starts a session with this data; whose it is, the definition's selector finds in it. cache: an idempotency key.

        RekindleError: as `Rekindle.start`.
        """
        start = to_json(
            {"data": data, "claims": claims, "user_id": identifier, "expires_in": expires_in, "idempotency_key": cache}
        )
        return _Placed(self._at(product, env, tag), lambda native: native.start(start), _started)

    @method
    def refresh(
        self,
        *,
        refresh_token: str,
        product: str | None = None,
        env: str | None = None,
        tag: str | None = None,
        proof: Proof | None = None,
    ) -> Call[Started]:
        """New tokens for a refresh token. RekindleError: as `Rekindle.refresh`."""
        tag, refresh_token = _parted(tag, refresh_token)
        asked = to_json({"refresh_token": refresh_token, "proof": proof})
        return _Placed(self._at(product, env, tag), lambda native: native.refresh(asked), _started)

    @method
    def verify(
        self, *, token: str, product: str | None = None, env: str | None = None, tag: str | None = None
    ) -> Call[Verdict]:
        """Whether a token is good, and what its session's data is. RekindleError: `unavailable`."""
        tag, token = _parted(tag, token)

        def good(said: str) -> Verdict:
            found = read(said)
            return Verdict(True, found["session_id"], time_of(found["expires_at"]), found["data"])

        def bad(error: RekindleError | OpenError) -> Verdict:
            if isinstance(error, OpenError) or error.is_transient:
                raise error
            return Verdict(False, reason=error.code)

        return _Placed(self._at(product, env, tag), lambda native: native.look(token), good, bad)

    @method
    def decrypt(
        self, *, token: str, product: str | None = None, env: str | None = None, tag: str | None = None
    ) -> Call[Json]:
        """The data of a token's session. RekindleError: as `Rekindle.verify` and `Rekindle.read`."""
        tag, token = _parted(tag, token)
        return _Placed(self._at(product, env, tag), lambda native: native.look(token), lambda said: read(said)["data"])

    @method
    def revoke(
        self,
        *,
        session_id: str | None = None,
        identifier: str | None = None,
        product: str | None = None,
        env: str | None = None,
        tag: str | None = None,
    ) -> Call[None]:
        """Ends a session, or all of a user's. RekindleError: as `Rekindle.revoke`."""
        of = self._at(product, env, tag)
        if session_id is None and identifier is None:
            raise TypeError("give a session_id or an identifier")

        def begin(native: Any) -> Any:
            return native.revoke_user(identifier) if session_id is None else native.revoke(session_id)

        return _Placed(of, begin, of._core.forget)

    @method
    def revoke_all(
        self,
        *,
        identifier: str,
        exclude_current_session: str | None = None,
        product: str | None = None,
        env: str | None = None,
        tag: str | None = None,
    ) -> Call[int]:
        """Ends all of a user's sessions, or all but one; how many that were. RekindleError: as `Rekindle.revoke_user`."""
        of = self._at(product, env, tag)
        return _Placed(of, lambda native: native.revoke_user(identifier, exclude_current_session), of._forgetting(int))

    @method
    def list_active(
        self,
        *,
        identifier: str | None = None,
        limit: int | None = None,
        after: str | None = None,
        product: str | None = None,
        env: str | None = None,
        tag: str | None = None,
    ) -> Call[tuple[list[Active], str | None]]:
        """The active sessions, of a user or of all, and where the others begin. RekindleError: as `Rekindle.list`."""
        asked = to_json({"user_id": identifier, "state": "active", "limit": limit, "after": after})
        return _Placed(self._at(product, env, tag), lambda native: native.list(asked), _active)

    def _at(self, product: str | None, env: str | None, tag: str | None) -> Any:
        """What is not named is as the handle says."""
        named = (product, env, tag)
        if not any(named):
            return self._rekindle
        if named not in self._others:
            self._others[named] = self._rekindle.at(product=product, env=env, tag=tag)
        return self._others[named]

    def _go(self, call: _Placed) -> Any:
        return call.of._go(call)


class Sessions(_Sessions, Blocking):  # type: ignore[misc]
    """Sessions by `<tag>:<token>`."""


class AsyncSessions(_Sessions, Awaiting):  # type: ignore[misc]
    """Sessions by `<tag>:<token>`, with methods to be awaited."""


def _parted(tag: str | None, token: str) -> tuple[str | None, str]:
    """The tag before a token, and the token: neither has a colon in it."""
    before, _, bare = token.rpartition(":")
    return tag or before or None, bare


def _started(said: str) -> Started:
    tokens = tokens_of(read(said))
    tag = tokens.session.tag
    return Started(
        token=f"{tag}:{tokens.access_token}",
        refresh_token=f"{tag}:{tokens.refresh_token}",
        session_id=tokens.session.id,
        expires_at=tokens.access_token_expires_at,
        refresh_expires_at=tokens.refresh_token_expires_at,
    )


def _active(said: str) -> tuple[list[Active], str | None]:
    page = page_of(read(said))
    shown = [Active(one.id, one.created_at, one.idle_expires_at, one.state == "active") for one in page.sessions]
    return shown, page.next

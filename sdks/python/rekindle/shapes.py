"""What goes over the border, and its types here: dataclasses with times that know their zone."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Json = dict[str, Any]
"""JSON that belongs to the application."""

Trust = Literal["fail-open", "fail-closed", "online"]
"""How far an access token is trusted: for its minutes even where it is not known at present what was revoked, only where that is known, or
not without asking for the session itself."""


@dataclass(frozen=True)
class Auth:
    """The authentication that a session rests on (OpenID Connect's `auth_time`, `acr` and `amr`)."""

    time: datetime
    acr: str | None = None
    amr: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """From where a client asks."""

    ip: str | None = None
    user_agent: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Proof:
    """What a client proves at a refresh: docs/PROTOCOL.md. Base64url without padding."""

    session_id: str
    generation: int
    commitment: str
    opening: str | None = field(default=None, repr=False)
    newest: bool | None = None


@dataclass(frozen=True)
class SessionInfo:
    """A session's row, as it was when it was read."""

    id: str
    product: str
    env: str
    tag: str
    user_id: str
    state: Literal["active", "ended"]
    end_reason: str | None
    ended_at: datetime | None
    generation: int
    binding: Literal["committed", "bearer"]
    data: Json
    claims: Json
    version: int
    """Counts writes of `data` and `claims`."""
    client: Client
    auth: Auth
    created_at: datetime
    last_refreshed_at: datetime
    idle_expires_at: datetime
    expires_at: datetime
    previous_session_id: str | None


@dataclass(frozen=True)
class Warning:
    """What the definition's schema would have refused, were it strict."""

    field: str
    detail: str


@dataclass(frozen=True)
class Tokens:
    """A session and its tokens, which are not in its `repr`."""

    session: SessionInfo
    access_token: str = field(repr=False)
    access_token_expires_at: datetime
    refresh_token: str = field(repr=False)
    refresh_token_expires_at: datetime
    commitment: str | None = field(repr=False)
    """What the refresh token is committed to; None for a bearer generation."""
    warnings: tuple[Warning, ...]


@dataclass(frozen=True)
class Minted:
    """A short access token that was bought without rotating."""

    session: SessionInfo
    access_token: str = field(repr=False)
    access_token_expires_at: datetime


@dataclass(frozen=True)
class Page:
    """Some of the sessions; `next` is where the others begin, to be given as `after`."""

    sessions: tuple[SessionInfo, ...]
    next: str | None


@dataclass(frozen=True)
class Verified:
    """What an access token says."""

    session_id: str
    user_id: str
    product: str
    env: str
    tag: str
    generation: int
    binding: Literal["committed", "bearer"]
    token_id: str
    issued_at: datetime
    expires_at: datetime
    auth: Auth
    _claims: Json

    @property
    def claims(self) -> Json:
        """The session's own claims; a copy, since what a token says is remembered."""
        return copy.deepcopy(self._claims)


def to_json(value: Any) -> str:
    """What goes over the border; members that are None are left out.

    ValueError or TypeError for what is no JSON.
    """
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))


_OPAQUE = frozenset({"data", "claims", "schema", "metadata"})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {member.name: getattr(value, member.name) for member in dataclasses.fields(value)}
    if isinstance(value, dict):
        # What is an application's own stays as it is, with its nulls: they remove members.
        return {name: member if name in _OPAQUE else _plain(member) for name, member in value.items() if member is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"the time {value} has no zone: use datetime.now(timezone.utc)")
        return value.isoformat()
    return value


def time_of(text: str) -> datetime:
    """A moment, from its text."""
    # Python 3.10 reads three digits of a second, or six, and no `Z`.
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction:0<3}+00:00")


def _maybe_time(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)


def _auth(said: Json) -> Auth:
    return Auth(time_of(said["time"]), said.get("acr"), tuple(said.get("amr", ())))


def session_of(said: Json) -> SessionInfo:
    """A session's row."""
    client = said.get("client") or {}
    return SessionInfo(
        id=said["id"],
        product=said["product"],
        env=said["env"],
        tag=said["tag"],
        user_id=said["user_id"],
        state=said["state"],
        end_reason=said.get("end_reason"),
        ended_at=_maybe_time(said.get("ended_at")),
        generation=said["generation"],
        binding=said["binding"],
        data=said["data"],
        claims=said["claims"],
        version=said["version"],
        client=Client(client.get("ip"), client.get("user_agent"), client.get("device")),
        auth=_auth(said["auth"]),
        created_at=time_of(said["created_at"]),
        last_refreshed_at=time_of(said["last_refreshed_at"]),
        idle_expires_at=time_of(said["idle_expires_at"]),
        expires_at=time_of(said["expires_at"]),
        previous_session_id=said.get("previous_session_id"),
    )


def tokens_of(said: Json) -> Tokens:
    """New tokens."""
    return Tokens(
        session=session_of(said["session"]),
        access_token=said["access_token"],
        access_token_expires_at=time_of(said["access_token_expires_at"]),
        refresh_token=said["refresh_token"],
        refresh_token_expires_at=time_of(said["refresh_token_expires_at"]),
        commitment=said.get("commitment"),
        warnings=tuple(Warning(one["field"], one["detail"]) for one in said.get("warnings", ())),
    )


def minted_of(said: Json) -> Minted:
    """A token that was bought without rotating."""
    return Minted(session_of(said["session"]), said["access_token"], time_of(said["access_token_expires_at"]))


def page_of(said: Json) -> Page:
    """Some of the sessions."""
    return Page(tuple(session_of(one) for one in said["sessions"]), said["next"])


def verified_of(said: Json) -> Verified:
    """What an access token says."""
    return Verified(
        session_id=said["session_id"],
        user_id=said["user_id"],
        product=said["product"],
        env=said["env"],
        tag=said["tag"],
        generation=said["generation"],
        binding=said["binding"],
        token_id=said["token_id"],
        issued_at=time_of(said["issued_at"]),
        expires_at=time_of(said["expires_at"]),
        auth=_auth(said["auth"]),
        _claims=said["claims"],
    )

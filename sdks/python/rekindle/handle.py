"""The handle: the same methods, whether the engine is in this process or on servers, and whether they block or are awaited."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TypedDict

from . import _native
from ._native import NativeError
from .errors import OpenError, told
from .memory import Memory
from .sessions import AsyncSessions, Sessions
from .shapes import (
    Auth,
    Client,
    Json,
    Minted,
    Page,
    Proof,
    SessionInfo,
    Tokens,
    Trust,
    Verified,
    minted_of,
    page_of,
    session_of,
    to_json,
    tokens_of,
    verified_of,
)
from .ways import Awaiting, Blocking, Call, later, method, read
from .web import AsyncWeb, Web, WebCore

# How many verified tokens are remembered on this side of the border, and for how many seconds.
_REMEMBERED = 10_000


class Place(TypedDict, total=False):
    """Where sessions belong."""

    product: str
    env: str
    tag: str


@dataclass(frozen=True)
class Revocation:
    """That a session ended, or, with a generation, that its access tokens of before are refused."""

    session_id: str
    below_generation: int | None


class _Host:
    """Where sessions are kept, opened when it is needed: a worker that was forked from a server has its own."""

    def __init__(self, options: dict[str, Any], embedded: bool) -> None:
        self._options = options
        self._embedded = embedded
        self._native: _native.Host | None = None
        self._lock = threading.Lock()
        self._lost = False
        _forked.add(self)

    def native(self) -> _native.Host:
        with self._lock:
            if self._lost:
                raise OpenError(
                    "this process was forked after its SQLite store had been opened, which SQLite does not survive: open sessions in the "
                    "worker, not in the process that starts it (they open themselves at their first use)"
                )
            if self._native is None:
                # What fetches a secret is asked once it is needed.
                options = to_json({name: value() if callable(value) else value for name, value in self._options.items()})
                self._native = _native.Host.embedded(options).wait() if self._embedded else _native.Host.remote(options)
            return self._native

    def forked(self) -> None:
        """In the child: nothing of the parent's is used, nor closed."""
        self._lock = threading.Lock()
        self._lost = self._lost or (self._native is not None and self._on_sqlite)
        self._native = None

    @property
    def _on_sqlite(self) -> bool:
        return self._embedded and self._options.get("store", "sqlite:").startswith("sqlite")


class _Core:
    """The sessions of one place, for both ways of waiting."""

    def __init__(self, host: _Host, place: Place) -> None:
        self.host = host
        self.place: Place = {"product": "default", "env": "dev", "tag": "default", **place}
        # What tokens say.
        self.known: Memory[Verified] = Memory(_REMEMBERED)
        self._memories: list[Memory[Any]] = [self.known]
        self._native: _native.Handle | None = None
        self._lock = threading.Lock()
        self._told: list[Callable[[Revocation], object]] = []
        _forked.add(self)

    def at(self, place: Place) -> _Core:
        return _Core(self.host, {**self.place, **place})

    def native(self) -> _native.Handle:
        native = self._native
        if native is not None:
            return native
        try:
            host = self.host.native()
            with self._lock:
                if self._native is None:
                    self._native = self._open(host)
                return self._native
        except NativeError as error:
            raise told(error) from None

    def _open(self, host: _native.Host) -> _native.Handle:
        native: _native.Handle = host.handle(self.place["product"], self.place["env"], self.place["tag"]).wait()
        # What ended is forgotten at once, and not in half a second.
        native.on_revoked(self._revoked)
        return native

    @property
    def present(self) -> _native.Handle | None:
        """The native half, if it is open."""
        return self._native

    async def native_later(self) -> _native.Handle:
        native = self._native
        return native if native is not None else await asyncio.to_thread(self.native)

    def on_revoked(self, callback: Callable[[Revocation], object]) -> None:
        self._told.append(callback)

    def _revoked(self, session_id: str, below_generation: int | None) -> None:
        self.forget()
        for callback in self._told:
            callback(Revocation(session_id, below_generation))

    def believed(self, token: str, trust: Trust) -> Verified | None:
        """What a token says that was verified a moment ago."""
        if trust == "fail-open":
            return self.known.get(token)
        self.known.forget(token)
        return None

    def remember(self, token: str, said: str) -> Verified:
        """What a token says that was verified just now."""
        says = verified_of(read(said))
        self.known.set(token, says, says.expires_at.timestamp())
        return says

    def memory(self, most: int) -> Memory[Any]:
        """Another one that is emptied whenever anything ends."""
        memory: Memory[Any] = Memory(most)
        self._memories.append(memory)
        return memory

    def forget(self, *_: object) -> None:
        """What this process ended it does not believe a moment longer."""
        for memory in self._memories:
            memory.clear()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._native = None
        self.forget()


_forked: weakref.WeakSet[Any] = weakref.WeakSet()


def _in_child() -> None:
    for one in list(_forked):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _embedded(options: dict[str, Any]) -> _Host:
    if "data_dir" in options:
        options["data_dir"] = os.fspath(options["data_dir"])
    return _Host({name: value for name, value in options.items() if value is not None}, embedded=True)


def _remote(server: str | Sequence[str], options: dict[str, Any]) -> _Host:
    servers = [server] if isinstance(server, str) else list(server)
    return _Host({"servers": servers, **{name: value for name, value in options.items() if value is not None}}, embedded=False)


class _Methods:
    """What both kinds of handles can do."""

    _core: _Core

    def __init__(self, core: _Core) -> None:
        self._core = core

    @property
    def place(self) -> Place:
        """Where these sessions belong."""
        return self._core.place.copy()

    @method
    def open(self) -> Call[None]:
        """Opens what is otherwise opened at the first use, to see now what is wrong.

        OpenError: no store, no secrets, no way to it.
        """
        # The handle's own opening is all there is to do.
        return Call(lambda native: _Done(), lambda _: None)

    @method
    def start(
        self,
        *,
        user_id: str | None = None,
        data: Json | None = None,
        claims: Json | None = None,
        auth: Auth | None = None,
        commitment: str | None = None,
        client: Client | None = None,
        previous_session_id: str | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Tokens]:
        """Starts a session.

        user_id: whose; with a selector in the definition it may be left out; neither: anonymous.
        data: at most 64 KiB of JSON, for the application. claims: at most 4 KiB, for the access token; about 2 KiB with cookies.
        commitment: the client's first; `Visit.sign_in` takes it from the request. expires_in: shortens the absolute lifetime, seconds.
        idempotency_key: the same key with the same content gives the same session, for 24 hours.

        RekindleError: `data_invalid`, `user_banned`, `session_limit_reached`, `conflict`, `invalid_request`, `unavailable`.
        """
        start = to_json(
            {
                "user_id": user_id,
                "data": data,
                "claims": claims,
                "auth": auth,
                "commitment": commitment,
                "client": client,
                "previous_session_id": previous_session_id,
                "expires_in": expires_in,
                "idempotency_key": idempotency_key,
            }
        )
        return Call(lambda native: native.start(start), _tokens)

    @method
    def refresh(self, refresh_token: str, *, proof: Proof | None = None, client: Client | None = None) -> Call[Tokens]:
        """New tokens for a refresh token. Asked again with the same, it answers the same: a lost answer costs nothing.

        RekindleError: `token_malformed`, `session_expired`, `session_revoked`, `token_theft_detected` (the session is over; the error has
        `session_id` and `user_id`), `superseded`, `proof_required`, `unavailable`.
        """
        asked = to_json({"refresh_token": refresh_token, "proof": proof, "client": client})
        return Call(lambda native: native.refresh(asked), _tokens)

    @method
    def elevate(
        self,
        refresh_token: str,
        *,
        acr: str | None = None,
        amr: Sequence[str] = (),
        time: datetime | None = None,
        proof: Proof | None = None,
        client: Client | None = None,
    ) -> Call[Tokens]:
        """A refresh after the user authenticated again, by default just now. Tokens of before are refused from then on.

        RekindleError: as `refresh`.
        """
        asked = to_json({"refresh_token": refresh_token, "proof": proof, "client": client})
        auth = to_json(Auth(time or datetime.now(timezone.utc), acr, tuple(amr)))
        return Call(lambda native: native.elevate(asked, auth), self._forgetting(_tokens))

    @method
    def mint(self, refresh_token: str, *, lifetime: int | None = None) -> Call[Minted]:
        """A short access token for a refresh token, which stays as it is. lifetime: seconds.

        RekindleError: as `refresh`.
        """
        return Call(lambda native: native.mint(refresh_token, lifetime), lambda said: minted_of(read(said)))

    @method
    def confirm(self, seen: Sequence[tuple[str, int]]) -> Call[None]:
        """Reports generations of bearer sessions that were seen in use: pairs of session and generation. `verify` does it by itself.

        RekindleError: `invalid_request`, `unavailable`.
        """
        pairs = to_json(list(seen))
        return Call(lambda native: native.confirm(pairs), lambda _: None)

    @method
    def sign_out(self, token: str) -> Call[None]:
        """Ends the session of a refresh or access token.

        RekindleError: `token_malformed`, `token_scope_mismatch`, `unavailable`.
        """
        return Call(lambda native: native.sign_out(token), self._core.forget)

    @method
    def revoke(self, session_id: str) -> Call[None]:
        """Ends a session, if it is not over. Every verifier refuses it within a second.

        RekindleError: `session_not_found`, `invalid_request`, `unavailable`.
        """
        return Call(lambda native: native.revoke(session_id), self._core.forget)

    @method
    def revoke_user(self, user_id: str, *, keep: str | None = None) -> Call[int]:
        """Ends all of a user's sessions, or all but `keep`; how many that were.

        RekindleError: `invalid_request`, `unavailable`.
        """
        return Call(lambda native: native.revoke_user(user_id, keep), self._forgetting(int))

    @method
    def credential_changed(self, user_id: str, *, keep: str | None = None) -> Call[int]:
        """The same because a password or another credential changed; the journal says so.

        RekindleError: as `revoke_user`.
        """
        return Call(lambda native: native.credential_changed(user_id, keep), self._forgetting(int))

    @method
    def read(self, session_id: str) -> Call[SessionInfo]:
        """A session.

        RekindleError: `session_not_found`, `invalid_request`, `unavailable`.
        """
        return Call(lambda native: native.read(session_id), lambda said: session_of(read(said)))

    @method
    def list(
        self,
        *,
        user_id: str | None = None,
        state: Literal["active", "ended"] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Call[Page]:
        """Some of the sessions, of a user or of all; at most 200.

        RekindleError: `invalid_request`, `unavailable`.
        """
        asked = to_json({"user_id": user_id, "state": state, "after": after, "limit": limit})
        return Call(lambda native: native.list(asked), lambda said: page_of(read(said)))

    @method
    def patch(
        self, session_id: str, *, data: Json | None = None, claims: Json | None = None, if_version: int | None = None
    ) -> Call[SessionInfo]:
        """Changes data and claims by merge patches (RFC 7396): None removes a member. Claims are in the next access token.

        RekindleError: `version_mismatch`, `data_invalid`, `session_not_found`, `session_revoked`, `session_expired`, `unavailable`.
        """
        asked = to_json({"data": data, "claims": claims, "if_version": if_version})
        return Call(lambda native: native.patch(session_id, asked), lambda said: session_of(read(said)))

    @method
    def sweep(self) -> Call[int]:
        """Removes what is over from the store, as much as is there now; how many rows that were. Servers sweep by themselves.

        RekindleError: `invalid_request` with sessions on servers, `unavailable`.
        """
        return Call(lambda native: native.sweep(), int)

    @method
    def define(self, definition: Json) -> Call[None]:
        """Makes or changes a session definition, `tag` and what is not as by default: docs/API.md. Only with an engine in this process.

        RekindleError: `invalid_request`, `unavailable`.
        """
        (core, text) = (self._core, to_json(definition))
        return Call(lambda _: core.host.native().define(core.place["product"], text), lambda _: None)

    def on_revoked(self, callback: Callable[[Revocation], object]) -> None:
        """Calls `callback`, from a thread of its own, with each session that ends or is elevated from now on: to close WebSockets."""
        self._core.on_revoked(callback)

    @property
    def is_stale(self) -> bool:
        """Whether it is not known at present what was revoked; nor is it before the handle is open."""
        native = self._core.present
        return native is None or native.is_stale()

    def _forgetting(self, shape: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def shaped(said: Any) -> Any:
            self._core.forget()
            return shape(said)

        return shaped


class _Done:
    """Work that is done, as `Pending` is asked for it."""

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return None


def _tokens(said: str) -> Tokens:
    return tokens_of(read(said))


class Rekindle(_Methods, Blocking):
    """Sessions of one product, environment and definition. Threads may share it; its methods block."""

    @classmethod
    def embedded(
        cls,
        *,
        store: str | None = None,
        data_dir: str | os.PathLike[str] = "./rekindle-data",
        secrets: str | Callable[[], str] | None = None,
        development: bool = False,
        issuer: str | None = None,
        product: str = "default",
        env: str = "dev",
        tag: str = "default",
    ) -> Rekindle:
        """With the engine in this process. It opens at its first use, in whichever process that is.

        store: `sqlite:` (in `data_dir`) by default, `sqlite:<path>`, `postgres://…`, `mysql://…`, `redis://…`; processes may share it.
        data_dir: the directory of the files that are nowhere else. secrets: the master secrets, as `rekindle` servers have them, or what
        fetches them from where keys are kept; the file `secrets` in `data_dir` by default. development: makes `data_dir`, and a master secret in it, where there are none: whoever loses
        the secret logs everybody out. issuer: the `iss` of access tokens, `http://localhost` by default.
        """
        options = {"store": store, "data_dir": data_dir, "secrets": secrets, "development": development, "issuer": issuer}
        return cls(_Core(_embedded(options), {"product": product, "env": env, "tag": tag}))

    @classmethod
    def remote(
        cls,
        server: str | Sequence[str],
        *,
        api_key: str | Callable[[], str],
        issuer: str | None = None,
        audience: str | None = None,
        connect_timeout: int | None = None,
        timeout: int | None = None,
        product: str = "default",
        env: str = "dev",
        tag: str = "default",
    ) -> Rekindle:
        """With the engine on servers, of which the first that answers is asked; none has to be up now.

        api_key: with the permissions `sessions`, `read` and `confirm`, or what fetches it. issuer, audience: as the servers are configured; the first URL and
        `{product}/{env}` by default. connect_timeout, timeout: milliseconds, 1000 and 5000 by default.
        """
        options = {"api_key": api_key, "issuer": issuer, "audience": audience, "connect_timeout": connect_timeout, "timeout": timeout}
        return cls(_Core(_remote(server, options), {"product": product, "env": env, "tag": tag}))

    def at(self, *, product: str | None = None, env: str | None = None, tag: str | None = None) -> Rekindle:
        """The sessions of another product, environment or definition of the same host."""
        return Rekindle(self._core.at(_place(product, env, tag)))

    @property
    def aio(self) -> AsyncRekindle:
        """The same sessions, with methods to be awaited."""
        return AsyncRekindle(self._core)

    @property
    def sessions(self) -> Sessions:
        """The same for code whose tokens are `<tag>:<token>`, and that names product and environment in each call."""
        return Sessions(self)

    def verify(self, access_token: str, *, trust: Trust = "fail-open") -> Verified:
        """What an access token says, if it is good; without I/O but for `trust="online"`.

        RekindleError: `access_token_expired`, `token_malformed`, `token_scope_mismatch`, `session_revoked`, `unavailable`.
        """
        core = self._core
        says = core.believed(access_token, trust)
        if says is not None:
            return says
        try:
            return core.remember(access_token, core.native().verify(access_token, trust).wait())
        except NativeError as error:
            raise told(error) from None

    def web(self, *, csrf_key: bytes | None = None, **settings: Any) -> Web:
        """The sessions of requests: see `Web`."""
        return Web(WebCore(self._core, settings, csrf_key))

    def _native(self) -> _native.Handle:
        return self._core.native()


class AsyncRekindle(_Methods, Awaiting):
    """As `Rekindle`, with methods to be awaited."""

    @classmethod
    def embedded(cls, **options: Any) -> AsyncRekindle:
        """As `Rekindle.embedded`."""
        return Rekindle.embedded(**options).aio

    @classmethod
    def remote(cls, server: str | Sequence[str], **options: Any) -> AsyncRekindle:
        """As `Rekindle.remote`."""
        return Rekindle.remote(server, **options).aio

    def at(self, *, product: str | None = None, env: str | None = None, tag: str | None = None) -> AsyncRekindle:
        """The sessions of another product, environment or definition of the same host."""
        return AsyncRekindle(self._core.at(_place(product, env, tag)))

    @property
    def sessions(self) -> AsyncSessions:
        """The same for code whose tokens are `<tag>:<token>`, and that names product and environment in each call."""
        return AsyncSessions(self)

    async def verify(self, access_token: str, *, trust: Trust = "fail-open") -> Verified:
        """As `Rekindle.verify`."""
        core = self._core
        says = core.believed(access_token, trust)
        if says is not None:
            return says
        try:
            native = await core.native_later()
            return core.remember(access_token, await later(native.verify(access_token, trust)))
        except NativeError as error:
            raise told(error) from None

    def web(self, *, csrf_key: bytes | None = None, **settings: Any) -> AsyncWeb:
        """The sessions of requests: see `AsyncWeb`."""
        return AsyncWeb(WebCore(self._core, settings, csrf_key))

    async def _native(self) -> _native.Handle:
        return await self._core.native_later()


def _place(product: str | None, env: str | None, tag: str | None) -> Place:
    place: Place = {}
    if product is not None:
        place["product"] = product
    if env is not None:
        place["env"] = env
    if tag is not None:
        place["tag"] = tag
    return place

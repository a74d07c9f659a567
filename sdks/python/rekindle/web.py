"""The sessions of requests: what every framework's integration calls."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import _native
from ._native import NativeError
from .errors import RekindleError, told
from .memory import Memory
from .shapes import Auth, Client, Json, SessionInfo, Tokens, Trust, Verified, session_of, to_json, tokens_of, verified_of
from .ways import Awaiting, Blocking, Call, later, method, read

if TYPE_CHECKING:
    from .handle import _Core

Headers = list[tuple[str, str]]
"""Names, in small letters, and values; `set-cookie` and `vary` may come several times."""

_MANY = frozenset({"set-cookie", "vary"})
_WANTED = frozenset(_native.Site.headers())
_REMEMBERED = 1_000
"""How many requests with a session are remembered."""


@dataclass(frozen=True)
class Answer:
    """An answer in full, to be given in place of the application's."""

    status: int
    headers: Headers = field(repr=False)
    body: str = field(repr=False)


class Refusal(Exception):
    """A request without a session that needs one: `answer` says so to its client."""

    def __init__(self, answer: Answer, code: str, is_absence: bool) -> None:
        super().__init__(f"the request has no good session: {code}")
        self.answer = answer
        self.code = code
        self.status = answer.status
        self.is_absence = is_absence
        """Whether there just is no session, or its token has expired. Otherwise something is out of order: an outage, ambiguous cookies."""


def answer_of(error: BaseException) -> Answer | None:
    """The answer to an error of sessions; None for any other."""
    if isinstance(error, Refusal):
        return error.answer
    if not isinstance(error, RekindleError):
        return None
    headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
    if error.retry_after:
        headers.append(("retry-after", str(error.retry_after)))
    said = {"type": f"urn:rekindle:problem:{error.code}", "status": error.status, "code": error.code, "detail": error.detail}
    # A client is not told whose session another one's token belongs to.
    about = {name: value for name, value in error.about.items() if name in _SHOWN}
    return Answer(error.status, headers, json.dumps({**said, **about}))


_SHOWN = frozenset({"which", "session_id", "presented_generation", "fields", "max_age"})


def merged(headers: Headers, has: Callable[[str], bool]) -> Headers:
    """What an answer does not have: cookies beside its cookies, `vary` beside its own, of others the first."""
    own = {name for name, _ in headers if name not in _MANY and has(name)}
    more = []
    for name, value in headers:
        if name in own:
            continue
        more.append((name, value))
        if name not in _MANY:
            own.add(name)
    return more


class WebCore:
    """What an application decides once about its sessions on the web, for both ways of waiting."""

    def __init__(self, core: _Core, settings: dict[str, Any], csrf_key: bytes | None) -> None:
        self._core = core
        # Whoever wants to know more of each session than that it was good a moment ago asks each time.
        self.memory: Memory[_Found] | None = core.memory(_REMEMBERED) if settings.get("trust") in (None, "fail-open") else None
        self._settings = to_json(settings)
        self._csrf_key = csrf_key
        self._site: tuple[_native.Handle, _native.Site] | None = None
        try:
            _native.check_web(self._settings, csrf_key)
        except NativeError as error:
            raise told(error) from None

    def forget(self) -> None:
        """What this process ended it does not believe a moment longer."""
        self._core.forget()

    def site(self) -> _native.Site:
        return self._of(self._core.native())

    async def site_later(self) -> _native.Site:
        return self._of(await self._core.native_later())

    def _of(self, native: _native.Handle) -> _native.Site:
        if self._site is None or self._site[0] is not native:
            self._site = (native, native.site(self._settings, self._csrf_key))
        return self._site[1]


_Found = tuple[_native.Session, Headers]
"""A request's session, and what the answer needs."""


class _Asked:
    """A request, and what was found for one with the same headers a moment ago."""

    def __init__(
        self, core: WebCore, site: _native.Site, method: str, path: str, headers: Iterable[tuple[str, str]], authority: str | None, ip: str | None
    ) -> None:
        lines = ""
        for name, value in headers:
            name = name.lower()
            if name in _WANTED:
                lines += f"{name}: {value}\n"
        self._begin = (method, path, lines, authority, ip)
        self._site = site
        self._exchange: _native.Exchange | None = None
        self._core = core
        self._key = f"{method} {authority}\n{lines}"
        # Only the session's own routes look at the path.
        self._memory = None if "/session/" in path else core.memory
        self.known = None if self._memory is None else self._memory.get(self._key)
        self.given: Headers = []
        """What a sign-in, a sign-out or an elevation gives to the answer."""
        self._is_theirs = False
        self._is_personal = False

    @property
    def exchange(self) -> _native.Exchange:
        """The native half, which the likes of a known request need not have."""
        if self._exchange is None:
            try:
                self._exchange = self._site.exchange(*self._begin)
            except NativeError as error:
                raise told(error) from None
        return self._exchange

    def early(self) -> Answer | bool:
        """The answer to give in place of the application's; or whether the request is for a route of the session's own."""
        if self.known is not None:
            return False
        early = self.exchange.early()
        if early is not None:
            return _answer(early)
        self._is_theirs = not self.exchange.is_route()
        return not self._is_theirs

    def found(self, trust: Trust | None) -> _native.Session | None:
        """The session, if one is wanted that is known already."""
        self._is_personal = True
        return None if self.known is None or trust is not None else self.known[0]

    def remember(self, session: _native.Session, trust: Trust | None, mint: bool) -> None:
        if self._memory is not None and self._is_theirs and trust is None and not mint:
            self._memory.set(self._key, (session, self.exchange.headers()), session.expires_at)

    def forget(self) -> None:
        self._core.forget()

    def headers(self) -> Headers:
        needed = self.exchange.headers() if self.known is None or not self._is_personal else self.known[1]
        return [*self.given, *needed]


class _Web:
    def __init__(self, core: WebCore) -> None:
        self._core = core


class Web(_Web):
    """Cookies, CSRF and routes of sessions, made by `Rekindle.web`, with any of these settings:

    base: under which path the routes are, `/auth` by default. cookies: `ssr` (default: every request carries the refresh token, so that
    pages can be rendered with `mint`) or `spa` (only the routes do). same_site: `lax` (default), `strict` or `none`. prefix: goes before
    the cookies' names. development: cookies go without `Secure` on http://localhost. origins: other origins whose scripts may use the
    session. sign_in: the path of the page on which a user signs in. fresh_for: how many seconds ago a user may have signed in to end
    other sessions. ended_as_440: whether the end of a session is answered with the status 440. trust: as `Rekindle.verify`. csrf_key: at
    least 32 bytes; unsafe requests then need the header `anti-csrf`, too.

    RekindleError: `invalid_request` for a setting that is wrong.
    """

    def visit(
        self, *, method: str, path: str, headers: Iterable[tuple[str, str]], authority: str | None = None, ip: str | None = None
    ) -> Visit:
        """A request, in whatever way it came. path: without the query. headers: as latin-1 texts, in which a server got the bytes."""
        return Visit(_Asked(self._core, self._core.site(), method, path, headers, authority, ip))

    @property
    def aio(self) -> AsyncWeb:
        """The same, with visits whose methods are awaited."""
        return AsyncWeb(self._core)

    def csrf_token(self, session_id: str, generation: int) -> str | None:
        """The token against CSRF of a session's generation; None without a `csrf_key`."""
        return self._core.site().csrf_token(session_id, generation)

    def csrf_matches(self, given: str, session_id: str, generation: int) -> bool:
        """Whether a text is that token; true without a `csrf_key`."""
        return self._core.site().csrf_matches(given, session_id, generation)


class AsyncWeb(_Web):
    """As `Web`, with visits whose methods are awaited."""

    async def visit(
        self, *, method: str, path: str, headers: Iterable[tuple[str, str]], authority: str | None = None, ip: str | None = None
    ) -> AsyncVisit:
        """A request, in whatever way it came."""
        return AsyncVisit(_Asked(self._core, await self._core.site_later(), method, path, headers, authority, ip))


class _Visit:
    """One request, and what its answer needs."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked

    @property
    def blocking(self) -> Visit:
        """The same, for code that blocks."""
        return Visit(self._asked)

    @property
    def aio(self) -> AsyncVisit:
        """The same, with methods to be awaited."""
        return AsyncVisit(self._asked)

    longest_body = _native.Exchange.longest_body()
    """How many bytes of a body the session's own routes read at most."""

    @method
    def refresh(self) -> Call[Answer]:
        """Rotates the request's refresh token, whatever its path; the answer of the route that does so."""
        return Call(lambda exchange: exchange.refresh(), self._answered)

    @method
    def sign_in(
        self,
        *,
        user_id: str | None = None,
        data: Json | None = None,
        claims: Json | None = None,
        auth: Auth | None = None,
        client: Client | None = None,
        previous_session_id: str | None = None,
        expires_in: int | None = None,
        idempotency_key: str | None = None,
        remember: bool = True,
    ) -> Call[Tokens]:
        """Starts a session for the request's client, once you have checked who that is; `headers` then has its cookies. Without `remember` they end
        with the browser. The session that the client had ends.

        RekindleError: as `Rekindle.start`, and `csrf_failed`: another site's page cannot sign a visitor in.
        """
        start = to_json(
            {
                "user_id": user_id,
                "data": data,
                "claims": claims,
                "auth": auth,
                "client": client,
                "previous_session_id": previous_session_id,
                "expires_in": expires_in,
                "idempotency_key": idempotency_key,
            }
        )
        return Call(lambda exchange: exchange.sign_in(start, remember), self._signed_in)

    def cleared(self) -> Headers:
        """The headers that take this client's cookies back."""
        return _headers(read(self._asked.exchange.cleared()))

    def give(self, headers: Headers) -> None:
        """Gives headers to the answer."""
        self._asked.given.extend(headers)

    def taken(self) -> Headers:
        """What was given so far: whoever takes it puts it into the answer."""
        taken = self._asked.given.copy()
        self._asked.given.clear()
        return taken

    def headers(self) -> Headers:
        """What the answer needs beside its own headers, once it is there: see `merged`."""
        return self._asked.headers()

    def ended(self, headers: Headers) -> None:
        """Gives headers to the answer after which a session is not what it was."""
        self._asked.forget()
        self.give(headers)

    def _answered(self, said: str) -> Answer:
        # A route of the session's own may have ended sessions.
        self._asked.forget()
        return _answer(said)

    def _signed_in(self, said: str) -> Tokens:
        signed_in = read(said)
        self.ended(_headers(signed_in["headers"]))
        return tokens_of(signed_in["tokens"])


class Visit(_Visit, Blocking):
    """One request, and what its answer needs."""

    def own(self, body: Callable[[], bytes]) -> Answer | None:
        """The answer to give in place of the application's, if there is one; `body` reads the request's, `longest_body` and one byte more at
        most."""
        early = self._asked.early()
        if not isinstance(early, bool):
            return early
        return self._go(Call(lambda exchange: exchange.answer(body()), self._answered)) if early else None

    def session(self, *, trust: Trust | None = None, mint: bool = False) -> Session:
        """The request's session, verified without I/O but for `trust="online"`. mint: an expired access token does not matter, for pages that
        are rendered on the server.

        Refusal: there is no good one.
        """
        known = self._asked.found(trust)
        if known is not None:
            return Session(known, self, is_shared=True)
        native = self.native_session(trust, mint)
        self._asked.remember(native, trust, mint)
        return Session(native, self)

    def native_session(self, trust: Trust | None = None, mint: bool = False) -> _native.Session:
        """The native half of the session of this very request."""
        return self._go(Call(lambda exchange: exchange.session(trust, mint), _found))

    def session_if_any(self, *, trust: Trust | None = None, mint: bool = False) -> Session | None:
        """The same, or None where there is none, or its token has expired."""
        try:
            return self.session(trust=trust, mint=mint)
        except Refusal as refusal:
            if refusal.is_absence:
                return None
            raise

    def _native(self) -> _native.Exchange:
        return self._asked.exchange


class AsyncVisit(_Visit, Awaiting):
    """As `Visit`, with methods to be awaited."""

    async def own(self, body: Callable[[], Awaitable[bytes]]) -> Answer | None:
        """As `Visit.own`."""
        early = self._asked.early()
        if not isinstance(early, bool):
            return early
        if not early:
            return None
        given = await body()
        return await self._go(Call(lambda exchange: exchange.answer(given), self._answered))

    async def session(self, *, trust: Trust | None = None, mint: bool = False) -> AsyncSession:
        """As `Visit.session`."""
        known = self._asked.found(trust)
        if known is not None:
            return AsyncSession(known, self, is_shared=True)
        native = await self.native_session(trust, mint)
        self._asked.remember(native, trust, mint)
        return AsyncSession(native, self)

    async def native_session(self, trust: Trust | None = None, mint: bool = False) -> _native.Session:
        """As `Visit.native_session`."""
        return await self._go(Call(lambda exchange: exchange.session(trust, mint), _found))

    async def session_if_any(self, *, trust: Trust | None = None, mint: bool = False) -> AsyncSession | None:
        """As `Visit.session_if_any`."""
        try:
            return await self.session(trust=trust, mint=mint)
        except Refusal as refusal:
            if refusal.is_absence:
                return None
            raise

    async def _native(self) -> _native.Exchange:
        return self._asked.exchange


class _Session:
    """The session of a request."""

    def __init__(self, native: _native.Session, visit: _Visit, is_shared: bool = False) -> None:
        self._session = native
        self._visit = visit
        # With other requests: what is written down says from where this very one comes.
        self._is_shared = is_shared
        self._says: Verified | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self._session.id

    @property
    def user_id(self) -> str:
        """Whose it is."""
        return self._session.user_id

    @property
    def claims(self) -> Json:
        """Its own claims."""
        return self.says.claims

    @property
    def says(self) -> Verified:
        """All that its access token says."""
        if self._says is None:
            self._says = verified_of(read(self._session.verified()))
        return self._says

    @method
    def read(self) -> Call[SessionInfo]:
        """Its row, with the application's data. RekindleError: as `Rekindle.read`."""
        return Call(lambda session: session.read(), lambda said: session_of(read(said)))

    @method
    def patch(self, *, data: Json | None = None, claims: Json | None = None, if_version: int | None = None) -> Call[SessionInfo]:
        """Changes its data and claims by merge patches (RFC 7396).

        RekindleError: as `Rekindle.patch`; `data_invalid`, too, if the claims would not fit into the cookie.
        """
        patch = to_json({"data": data, "claims": claims, "if_version": if_version})
        return Call(lambda session: session.patch(patch), lambda said: session_of(read(said)))

    @method
    def sign_out(self) -> Call[None]:
        """Ends it, and takes the cookies back. RekindleError: `unavailable`."""
        return Call(lambda session: session.sign_out(), lambda said: self._visit.ended(_headers(read(said))))

    @method
    def elevate(self, *, acr: str | None = None, amr: Iterable[str] = (), time: datetime | None = None) -> Call[Tokens]:
        """Notes that the user has authenticated again, by default just now, and gives new tokens to the client. Needs the refresh token
        (`cookies="ssr"`).

        RekindleError: `proof_required`, and as `Rekindle.refresh`.
        """
        auth = to_json(Auth(time or datetime.now(timezone.utc), acr, tuple(amr)))
        return Call(lambda session: session.elevate(auth), self._visit._signed_in)

    def require_fresh_sign_in(self) -> None:
        """RekindleError: `reauthentication_required`, if the user signed in longer ago than `fresh_for`."""
        try:
            self._session.require_fresh_sign_in()
        except NativeError as error:
            raise told(error) from None


class Session(_Session, Blocking):
    """The session of a request."""

    _visit: Visit

    def _native(self) -> _native.Session:
        return self._visit.native_session() if self._is_shared else self._session


class AsyncSession(_Session, Awaiting):
    """As `Session`, with methods to be awaited."""

    _visit: AsyncVisit

    async def _native(self) -> _native.Session:
        return await self._visit.native_session() if self._is_shared else self._session


def _found(found: tuple[_native.Session | None, str | None, bool, str | None]) -> _native.Session:
    session, answer, absent, code = found
    if session is None:
        raise Refusal(_answer(answer or "{}"), code or "", absent)
    return session


def _answer(said: str) -> Answer:
    answer = read(said)
    return Answer(answer["status"], _headers(answer["headers"]), answer["body"])


def _headers(pairs: list[list[str]]) -> Headers:
    return [(name, value) for name, value in pairs]

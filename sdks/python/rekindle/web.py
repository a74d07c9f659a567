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
from .shapes import Auth, Client, Json, SessionInfo, Tokens, Trust, Verified, session_of, to_json, tokens_of, verified_of
from .ways import Awaiting, Blocking, Call, later, method, read

if TYPE_CHECKING:
    from .handle import _Core

Headers = list[tuple[str, str]]
"""Names, in small letters, and values; `set-cookie` and `vary` may come several times."""

_MANY = frozenset({"set-cookie", "vary"})
_WANTED = frozenset(_native.Site.headers())


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
        self._settings = to_json(settings)
        self._csrf_key = csrf_key
        self._site: tuple[_native.Handle, _native.Site] | None = None
        try:
            _native.check_web(self._settings, csrf_key)
        except NativeError as error:
            raise told(error) from None

    def site(self) -> _native.Site:
        return self._of(self._core.native())

    async def site_later(self) -> _native.Site:
        return self._of(await self._core.native_later())

    def _of(self, native: _native.Handle) -> _native.Site:
        if self._site is None or self._site[0] is not native:
            self._site = (native, native.site(self._settings, self._csrf_key))
        return self._site[1]


def _exchange(
    site: _native.Site, method: str, path: str, headers: Iterable[tuple[str, str]], authority: str | None, ip: str | None
) -> _native.Exchange:
    lines = []
    for name, value in headers:
        name = name.lower()
        if name in _WANTED:
            lines.append(f"{name}: {value}\n")
    try:
        return site.exchange(method, path, "".join(lines), authority, ip)
    except NativeError as error:
        raise told(error) from None


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
        return Visit(_exchange(self._core.site(), method, path, headers, authority, ip))

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
        return AsyncVisit(_exchange(await self._core.site_later(), method, path, headers, authority, ip))


class _Visit:
    """One request, and what its answer needs."""

    def __init__(self, exchange: _native.Exchange, given: Headers | None = None) -> None:
        self._exchange = exchange
        # What a sign-in, a sign-out or an elevation gives to the answer.
        self._given: Headers = [] if given is None else given

    @property
    def blocking(self) -> Visit:
        """The same, for code that blocks."""
        return Visit(self._exchange, self._given)

    @property
    def aio(self) -> AsyncVisit:
        """The same, with methods to be awaited."""
        return AsyncVisit(self._exchange, self._given)

    longest_body = _native.Exchange.longest_body()
    """How many bytes of a body the session's own routes read at most."""

    @method
    def refresh(self) -> Call[Answer]:
        """Rotates the request's refresh token, whatever its path; the answer of the route that does so."""
        return Call(lambda exchange: exchange.refresh(), _answer)

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
        return _headers(read(self._exchange.cleared()))

    def give(self, headers: Headers) -> None:
        """Gives headers to the answer."""
        self._given.extend(headers)

    def taken(self) -> Headers:
        """What was given so far: whoever takes it puts it into the answer."""
        taken = self._given.copy()
        self._given.clear()
        return taken

    def headers(self) -> Headers:
        """What the answer needs beside its own headers, once it is there: see `merged`."""
        return [*self._given, *self._exchange.headers()]

    def _early(self) -> Answer | None:
        early = self._exchange.early()
        return None if early is None else _answer(early)

    def _signed_in(self, said: str) -> Tokens:
        signed_in = read(said)
        self.give(_headers(signed_in["headers"]))
        return tokens_of(signed_in["tokens"])


class Visit(_Visit, Blocking):
    """One request, and what its answer needs."""

    def own(self, body: Callable[[], bytes]) -> Answer | None:
        """The answer to give in place of the application's, if there is one; `body` reads the request's, `longest_body` and one byte more at
        most."""
        answer = self._early()
        if answer is not None or not self._exchange.is_route():
            return answer
        return self._go(Call(lambda exchange: exchange.answer(body()), _answer))

    def session(self, *, trust: Trust | None = None, mint: bool = False) -> Session:
        """The request's session, verified without I/O but for `trust="online"`. mint: an expired access token does not matter, for pages that
        are rendered on the server.

        Refusal: there is no good one.
        """
        return self._go(Call(lambda exchange: exchange.session(trust, mint), lambda found: Session(*_found(found), self)))

    def session_if_any(self, *, trust: Trust | None = None, mint: bool = False) -> Session | None:
        """The same, or None where there is none, or its token has expired."""
        try:
            return self.session(trust=trust, mint=mint)
        except Refusal as refusal:
            if refusal.is_absence:
                return None
            raise

    def _native(self) -> _native.Exchange:
        return self._exchange


class AsyncVisit(_Visit, Awaiting):
    """As `Visit`, with methods to be awaited."""

    async def own(self, body: Callable[[], Awaitable[bytes]]) -> Answer | None:
        """As `Visit.own`."""
        answer = self._early()
        if answer is not None or not self._exchange.is_route():
            return answer
        given = await body()
        return await self._go(Call(lambda exchange: exchange.answer(given), _answer))

    async def session(self, *, trust: Trust | None = None, mint: bool = False) -> AsyncSession:
        """As `Visit.session`."""
        return await self._go(
            Call(lambda exchange: exchange.session(trust, mint), lambda found: AsyncSession(*_found(found), self))
        )

    async def session_if_any(self, *, trust: Trust | None = None, mint: bool = False) -> AsyncSession | None:
        """As `Visit.session_if_any`."""
        try:
            return await self.session(trust=trust, mint=mint)
        except Refusal as refusal:
            if refusal.is_absence:
                return None
            raise

    async def _native(self) -> _native.Exchange:
        return self._exchange


class _Session:
    """The session of a request."""

    def __init__(self, native: _native.Session, visit: _Visit) -> None:
        self._session = native
        self._visit = visit
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
        return Call(lambda session: session.sign_out(), lambda said: self._visit.give(_headers(read(said))))

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

    def _native(self) -> _native.Session:
        return self._session


class AsyncSession(_Session, Awaiting):
    """As `Session`, with methods to be awaited."""

    async def _native(self) -> _native.Session:
        return self._session


def _found(found: tuple[_native.Session | None, str | None, bool, str | None]) -> tuple[_native.Session]:
    session, answer, absent, code = found
    if session is None:
        raise Refusal(_answer(answer or "{}"), code or "", absent)
    return (session,)


def _answer(said: str) -> Answer:
    answer = read(said)
    return Answer(answer["status"], _headers(answer["headers"]), answer["body"])


def _headers(pairs: list[list[str]]) -> Headers:
    return [(name, value) for name, value in pairs]

"""The same application on each framework, before real servers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from conftest import HERE, program

APPS = HERE / "apps"
GUNICORN = ["gunicorn", "--threads", "4", "--bind", "127.0.0.1:0"]
UVICORN = ["uvicorn", "--port", "0"]
SERVERS = {
    "Flask": [*GUNICORN, "flask_app:app"],
    "FastAPI": [*UVICORN, "fastapi_app:app"],
    "Django": [*GUNICORN, "django_app:wsgi"],
    "Django by ASGI": [*UVICORN, "django_app:asgi"],
}
ADDRESS = r"(?:Listening at:|running on) (http://\S+)"


@pytest.fixture(scope="module", params=SERVERS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    env = {"DATA": str(tmp_path_factory.mktemp("data")), "PYTHONPATH": f"{APPS}:{os.environ.get('PYTHONPATH', '')}"}
    with program(sys.executable, "-m", *SERVERS[request.param], env=env, address=ADDRESS) as found:
        yield found[1]


def test_a_visitor_signs_in_is_served_refreshes_and_signs_out(base: str) -> None:
    browser = Browser(base)
    assert browser.ask("GET", "/maybe").body == {"user": None}
    login = browser.ask("POST", "/login?user=alice")
    assert login.status == 200, login
    assert sorted(browser.cookies) == ["rekindle-access", "rekindle-refresh", "rekindle-session"]
    for path in ["/me", "/aio/me"]:
        me = browser.ask("GET", path)
        assert (me.status, me.body) == (200, {"user": "alice"}), me
        assert me.headers["cache-control"] == "private, no-store"
        assert "cookie, authorization" in me.headers["vary"].lower()

    before = browser.cookies["rekindle-refresh"]
    refreshed = browser.refresh()
    assert (refreshed.status, refreshed.body["generation"], refreshed.body["user_id"]) == (200, 1, "alice")
    assert browser.cookies["rekindle-refresh"] != before
    assert browser.ask("GET", "/me").body == {"user": "alice"}

    assert browser.ask("POST", "/elevate").status == 200
    assert browser.ask("GET", "/me").body == {"user": "alice"}
    changed = browser.ask("POST", "/change?note=Z%C3%BCrich")
    assert changed.body == {"note": "Zürich"}, changed
    large = browser.ask("POST", "/change?claim=" + "x" * 3500)
    assert (large.status, large.body["code"]) == (422, "data_invalid"), large

    assert browser.ask("POST", "/logout").status == 200
    assert browser.cookies == {}
    out = browser.ask("GET", "/me")
    assert (out.status, out.body["code"]) == (401, "token_malformed")


def test_other_sites_are_refused_and_listed_origins_may_read(base: str) -> None:
    browser = Browser(base)
    browser.ask("POST", "/login?user=bob")
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    forged = browser.ask("POST", "/logout", foreign)
    assert (forged.status, forged.body["code"]) == (403, "csrf_failed")
    assert Browser(base).ask("POST", "/login?user=eve", foreign).status == 403
    without = browser.ask("POST", "/auth/session/refresh")
    assert (without.status, without.body["code"]) == (403, "csrf_failed")

    origin = "http://localhost:5173"
    listed = browser.ask("GET", "/me", {"origin": origin, "sec-fetch-site": "same-site"})
    assert listed.headers["access-control-allow-origin"] == origin
    preflight = browser.ask("OPTIONS", "/me", {"origin": origin, "access-control-request-method": "PATCH"})
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, origin)


def test_tokens_come_and_go_in_headers(base: str) -> None:
    app = Browser(base)
    login = app.ask("POST", "/login?user=carol", {"rekindle-mode": "header"})
    assert app.cookies == {}
    access, refresh = (login.headers[f"rekindle-{kind}-token"] for kind in ("access", "refresh"))

    def bearer(token: str) -> dict[str, str]:
        return {"rekindle-mode": "header", "authorization": f"Bearer {token}"}

    assert app.ask("GET", "/me", bearer(access)).body == {"user": "carol"}
    refreshed = app.ask("POST", "/auth/session/refresh", bearer(refresh))
    assert refreshed.status == 200
    assert refreshed.headers["rekindle-refresh-token"].startswith("rkr_")
    for damaged in [access[:-4], "x", access + "é"]:
        assert app.ask("GET", "/me", bearer(damaged)).status == 401


def test_a_page_refreshes_or_is_rendered(base: str) -> None:
    browser = Browser(base)
    browser.ask("POST", "/login?user=dave")
    del browser.cookies["rekindle-access"]
    page = browser.ask("GET", "/me", {"accept": "text/html", "sec-fetch-mode": "navigate"})
    assert page.status == 401
    assert '<script src="/auth/session/refresh.js"' in page.body
    assert "javascript" in browser.ask("GET", "/auth/session/refresh.js").headers["content-type"]
    assert browser.ask("GET", "/rendered").body == {"user": "dave"}


def test_each_request_is_answered_by_itself_although_the_one_before_had_the_same_headers(base: str) -> None:
    phone, desk = Browser(base), Browser(base)
    for browser in (phone, desk):
        browser.ask("POST", "/login?user=frank")
    for _ in range(3):
        me = phone.ask("GET", "/me")
        assert (me.body, me.headers["cache-control"]) == ({"user": "frank"}, "private, no-store")
        # Who asks for no session may be answered from a cache.
        open = phone.ask("GET", "/nowhere")
        assert (open.status, "cache-control" in open.headers) == (404, False)
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert phone.ask("POST", "/logout", foreign).status == 403
    other = next(item["id"] for item in desk.ask("GET", "/auth/session/list").body["items"] if not item["current"])
    body = json.dumps({"session_id": other})
    assert phone.ask("GET", "/me").status == 200
    assert desk.ask("POST", "/auth/session/revoke", {"content-type": "application/json"}, body).status == 200
    over = phone.ask("GET", "/me")
    assert (over.status, over.body["code"]) == (401, "session_revoked")


def test_users_list_and_revoke_their_own(base: str) -> None:
    phone, desk = Browser(base), Browser(base)
    for browser in (phone, desk):
        browser.ask("POST", "/login?user=erin")
    items = desk.ask("GET", "/auth/session/list").body["items"]
    assert sorted(item["current"] for item in items) == [False, True]
    other = next(item["id"] for item in items if not item["current"])
    kind = {"content-type": "application/json"}
    revoked = desk.ask("POST", "/auth/session/revoke", kind, json.dumps({"session_id": other}))
    assert (revoked.status, revoked.body) == (200, {"revoked": 1})
    assert phone.refresh().status == 401
    assert desk.ask("POST", "/auth/session/revoke", kind, "x" * 3000).status == 413
    assert desk.ask("GET", "/auth/session/revoke").status == 405


def test_django_rest_framework_knows_the_user(tmp_path: Path) -> None:
    env = {"DATA": str(tmp_path), "PYTHONPATH": f"{APPS}:{os.environ.get('PYTHONPATH', '')}"}
    with program(sys.executable, "-m", *SERVERS["Django"], env=env, address=ADDRESS) as found:
        browser = Browser(found[1])
        nobody = browser.ask("GET", "/rest")
        assert nobody.status == 401, nobody
        browser.ask("POST", "/login?user=1")
        rest = browser.ask("GET", "/rest")
        assert (rest.status, rest.body) == (200, {"user": "ada", "session": "1"}), rest
        del browser.cookies["rekindle-access"]
        expired = browser.ask("GET", "/rest")
        assert (expired.status, expired.body["code"]) == (401, "access_token_expired")
        stranger = Browser(found[1])
        stranger.ask("POST", "/login?user=nobody-s-number")
        assert stranger.ask("GET", "/rest").status == 401


def test_a_websocket_has_its_session(tmp_path: Path) -> None:
    from websockets.sync.client import connect

    env = {"DATA": str(tmp_path), "PYTHONPATH": f"{APPS}:{os.environ.get('PYTHONPATH', '')}"}
    with program(sys.executable, "-m", *SERVERS["FastAPI"], env=env, address=ADDRESS) as found:
        browser = Browser(found[1])
        browser.ask("POST", "/login?user=alice")
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        port = found[1].rpartition(":")[2]
        headers = {"cookie": cookie, "sec-fetch-site": "same-origin"}
        with connect(f"ws://localhost:{port}/live", additional_headers=headers) as live:
            assert live.recv(timeout=10) == "alice"
            # The session ends elsewhere, and so does the socket.
            assert browser.ask("POST", "/logout").status == 200
            assert live.recv(timeout=10) == "signed out"

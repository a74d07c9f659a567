"""The handle: sessions without requests, in this process and on a server, blocking and awaited."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import re
import threading
import logging
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from rekindle import Auth, Client, OpenError, Proof, Rekindle, RekindleError


def code(expected: str, does: Any) -> RekindleError:
    """The error that something ends with."""
    with pytest.raises(RekindleError) as raised:
        does()
    assert raised.value.code == expected, raised.value.detail
    return raised.value


def secret() -> tuple[str, str]:
    """An opening with its commitment."""
    opening = os.urandom(32)
    text = lambda some: base64.urlsafe_b64encode(some).rstrip(b"=").decode()  # noqa: E731
    return text(opening), text(hashlib.sha256(opening).digest()[:16])


def test_a_session_lives(rekindle: Any) -> None:
    first = rekindle.start(user_id="alice", data={"cartItems": [1]}, claims={"is_admin": False}, client=Client(device="phone"))
    assert first.session.data == {"cartItems": [1]}
    now = datetime.now(timezone.utc)
    assert first.access_token_expires_at > now >= first.session.created_at - timedelta(seconds=1)
    assert first.access_token not in repr(first) and first.refresh_token not in repr(first)
    says = rekindle.verify(first.access_token)
    assert (says.user_id, says.session_id, says.claims) == ("alice", first.session.id, {"is_admin": False})
    says.claims["is_admin"] = True
    assert rekindle.verify(first.access_token).claims == {"is_admin": False}
    assert rekindle.verify(first.access_token, trust="online").user_id == "alice"
    # What was revoked is known once the feed was read, which is done twice in a second.
    until = time.monotonic() + 10
    while rekindle.is_stale and time.monotonic() < until:
        time.sleep(0.05)
    assert rekindle.verify(first.access_token, trust="fail-closed").user_id == "alice"

    second = rekindle.refresh(first.refresh_token)
    assert second.session.generation == 1
    assert rekindle.refresh(first.refresh_token).refresh_token == second.refresh_token, "a lost answer is given again"

    version = second.session.version
    changed = rekindle.patch(first.session.id, data={"cartItems": None, "note": "ü😀"}, if_version=version)
    assert changed.data == {"note": "ü😀"}
    code("version_mismatch", lambda: rekindle.patch(first.session.id, data={}, if_version=version))
    assert rekindle.read(first.session.id).data == {"note": "ü😀"}
    page = rekindle.list(user_id="alice", state="active")
    assert ([session.id for session in page.sessions], page.next) == ([first.session.id], None)
    assert rekindle.verify(rekindle.mint(second.refresh_token, lifetime=30).access_token).user_id == "alice"

    rekindle.sign_out(second.refresh_token)
    code("session_revoked", lambda: rekindle.verify(second.access_token, trust="online"))
    assert code("session_revoked", lambda: rekindle.refresh(second.refresh_token)).is_terminal
    ended = rekindle.read(first.session.id)
    assert ended.state == "ended" and ended.ended_at is not None


def test_the_rules_for_committed_clients_hold(rekindle: Any) -> None:
    (one, first_commitment), (_, second_commitment), (_, third_commitment) = secret(), secret(), secret()
    first = rekindle.start(user_id="bob", commitment=first_commitment)
    assert first.commitment == first_commitment
    error = code("proof_required", lambda: rekindle.refresh(first.refresh_token))
    assert error.generation == 0
    proof = Proof(first.session.id, 0, second_commitment, one)
    assert one not in repr(proof)
    second = rekindle.refresh(first.refresh_token, proof=proof)
    assert second.commitment == second_commitment
    wrong = Proof(first.session.id, 1, third_commitment, one)
    theft = code("token_theft_detected", lambda: rekindle.refresh(second.refresh_token, proof=wrong))
    assert (theft.user_id, theft.session_id, theft.kind) == ("bob", first.session.id, "stolen_token")
    code("session_revoked", lambda: rekindle.verify(second.access_token, trust="online"))


def test_all_sessions_of_a_user_but_one_end(rekindle: Any) -> None:
    kept, other = rekindle.start(user_id="carol"), rekindle.start(user_id="carol")
    rekindle.verify(other.access_token)
    told = threading.Event()
    rekindle.on_revoked(lambda revocation: told.set() if revocation.session_id == other.session.id else None)
    assert rekindle.revoke_user("carol", keep=kept.session.id) == 1
    assert told.wait(10)
    code("session_revoked", lambda: rekindle.verify(other.access_token))
    assert rekindle.verify(kept.access_token).user_id == "carol"
    assert rekindle.credential_changed("carol") == 1
    code("session_revoked", lambda: rekindle.verify(kept.access_token, trust="online"))


def test_an_elevation_ends_the_tokens_of_before(rekindle: Any) -> None:
    before = rekindle.start(user_id="dave", auth=Auth(datetime.now(timezone.utc) - timedelta(hours=1), amr=("pwd",)))
    after = rekindle.elevate(before.refresh_token, acr="aal2", amr=["otp"])
    assert after.session.auth.acr == "aal2" and after.session.auth.time > before.session.auth.time
    with pytest.raises(RekindleError):
        rekindle.verify(before.access_token, trust="online")
    assert rekindle.verify(after.access_token, trust="online").auth.amr == ("otp",)


def test_what_is_wrong_is_said(rekindle: Any) -> None:
    assert "integer `5`" in code("invalid_request", lambda: rekindle.start(user_id=5)).detail
    with pytest.raises(TypeError, match="unexpected keyword"):
        rekindle.start(user="x")
    with pytest.raises(TypeError, match="not JSON serializable"):
        rekindle.start(data={"when": datetime.now(timezone.utc)})
    with pytest.raises(ValueError):
        rekindle.start(data={"nan": float("nan")})
    with pytest.raises(ValueError, match="no zone"):
        rekindle.start(auth=Auth(datetime.now()))
    for token in ["", "x", "rkr_x", "a.b.c", "\0", "x" * 100_000]:
        code("token_malformed", lambda: rekindle.verify(token))  # noqa: B023
    code("token_malformed", lambda: rekindle.refresh("rkr_x"))
    code("invalid_request", lambda: rekindle.verify("x", trust="blindly"))
    code("invalid_request", lambda: rekindle.read("x"))
    error = code("session_not_found", lambda: rekindle.read("0199a3b4-7c00-7000-8000-000000000001"))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.status, copy.detail) == (error.code, 404, error.detail)
    assert error.user_id is None
    with pytest.raises(AttributeError):
        error.nothing  # noqa: B018
    with pytest.raises(UnicodeEncodeError):
        rekindle.verify("\ud800")


def test_a_token_names_its_tag(rekindle: Any) -> None:
    data = {"userId": "1919102009383", "details": {"username": "feekayo"}}
    sessions = rekindle.sessions
    started = sessions.start(tag="default", data=data, identifier="1919102009383")
    assert re.match("default:ey", started.token)
    assert sessions.decrypt(token=started.token) == data
    verdict = sessions.verify(product="default", env="dev", tag="default", token=started.token)
    assert (verdict.valid, verdict.session_id, verdict.data) == (True, started.session_id, data)
    result = sessions.refresh(tag="default", refresh_token=started.refresh_token)
    assert result.session_id == started.session_id
    active, after = sessions.list_active(identifier="1919102009383")
    assert active[0].active and after is None
    assert sessions.revoke_all(identifier="1919102009383") == 1
    sessions.revoke(session_id=started.session_id)
    time.sleep(1.5)
    verdict = sessions.verify(token=result.token)
    assert (verdict.valid, verdict.reason) == (False, "session_revoked")
    with pytest.raises(TypeError):
        sessions.revoke()


def embedded(folder: Path, **options: Any) -> Rekindle:
    return Rekindle.embedded(data_dir=folder / "data", development=True, **options)


def test_what_is_not_there_is_made(tmp_path: Path) -> None:
    rekindle = embedded(tmp_path, product="shop", env="prd", tag="cart")
    rekindle.define({"tag": "cart", "selector": "$Session{userId}", "access_token": {"lifetime": 60}})
    tokens = rekindle.start(data={"userId": "alice"})
    session = tokens.session
    assert (session.product, session.env, session.tag, session.user_id) == ("shop", "prd", "cart", "alice")
    assert tokens.access_token_expires_at - datetime.now(timezone.utc) <= timedelta(seconds=60)
    code("invalid_request", lambda: rekindle.define({"tag": "cart", "access_token": {"lifetime": 0}}))
    code("token_malformed", lambda: rekindle.at(env="dev").verify(rekindle.start(data={"userId": "a"}).access_token))
    assert rekindle.sweep() == 0


def test_a_store_that_cannot_be_used_is_refused_without_its_password(tmp_path: Path) -> None:
    assert "s3cret" not in code("invalid_request", embedded(tmp_path, store="oracle://ada:s3cret@x").open).detail
    with pytest.raises(OpenError, match="no master secrets"):
        Rekindle.embedded(data_dir=tmp_path / "nothing").open()
    with pytest.raises(RekindleError, match="csrf_key"):
        embedded(tmp_path).web(csrf_key=b"short")
    with pytest.raises(RekindleError, match="unknown field `bases`"):
        embedded(tmp_path).web(bases="/x")
    code("invalid_request", lambda: Rekindle.remote("http://127.0.0.1:1", api_key="x").sweep())


def test_secrets_are_fetched_where_they_are_kept(tmp_path: Path) -> None:
    refresh_token = embedded(tmp_path).start(user_id="alice").refresh_token
    kept = (tmp_path / "data" / "secrets").read_text()
    fetched = Rekindle.embedded(data_dir=tmp_path / "data", secrets=lambda: kept)
    assert fetched.refresh(refresh_token).session.user_id == "alice"
    code("invalid_request", Rekindle.embedded(data_dir=tmp_path / "data", secrets=lambda: "nothing").open)


def test_outages_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    away = Rekindle.remote("http://127.0.0.1:1", api_key=lambda: "rk_away")
    with caplog.at_level(logging.INFO, logger="rekindle"):
        code("unavailable", lambda: away.start(user_id="alice"))
    [line] = [line for line in caplog.records if "reach" in line.message or "answer" in line.message][:1]
    assert (line.name, line.levelname) == ("rekindle", "WARNING")
    assert line.fields["server"] == "http://127.0.0.1:1/"  # type: ignore[attr-defined]
    assert "rk_away" not in caplog.text


def test_a_known_token_is_not_believed_beyond_its_life(tmp_path: Path) -> None:
    rekindle = embedded(tmp_path)
    rekindle.define({"tag": "default", "access_token": {"lifetime": 1}})
    token = rekindle.start(user_id="alice").access_token
    until = time.monotonic() + 10
    with pytest.raises(RekindleError) as raised:
        while time.monotonic() < until:
            rekindle.verify(token)
    assert raised.value.code == "access_token_expired"


def test_threads_share_a_handle(tmp_path: Path) -> None:
    rekindle = embedded(tmp_path)
    failed: list[BaseException] = []

    def live(name: str) -> None:
        try:
            for _ in range(20):
                tokens = rekindle.start(user_id=name)
                for _ in range(3):
                    tokens = rekindle.refresh(tokens.refresh_token)
                    assert rekindle.verify(tokens.access_token).user_id == name
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=live, args=(f"user-{at}",)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []

"""The code of documents that describe earlier session libraries, translated in package and configuration names alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import python

HERE = Path(__file__).parent


def test_a_django_view_refreshes_sees_theft_and_clears(tmp_path: Path) -> None:
    assert json.loads(python(str(HERE / "programs" / "seed_django.py"), str(tmp_path)).splitlines()[-1]) == "ok"


def test_functions_without_a_framework(tmp_path: Path) -> None:
    from rekindle import Rekindle, functions
    from rekindle.exceptions import (
        RekindleGeneralException,
        RekindleTokenTheftException,
        RekindleTryRefreshTokenException,
        RekindleUnauthorizedException,
    )

    def fails(kind: type[Exception], does: Any) -> Any:
        with pytest.raises(kind) as raised:
            does()
        return raised.value

    fails(RekindleGeneralException, lambda: functions.create_new_session("alice"))
    functions.init(Rekindle.embedded(data_dir=tmp_path / "data", development=True), csrf_key=b"7" * 32)

    first = functions.create_new_session(7, {"role": "admin"}, {"cart": [1]})
    handle = first["session"]["handle"]
    assert first["session"] == {"handle": handle, "user_id": "7", "jwt_payload": {"role": "admin"}}
    assert isinstance(first["access_token"]["expires_at"], int) and first["id_refresh_token"]["value"]
    token, csrf = first["access_token"]["value"], first["anti_csrf_token"]
    assert functions.get_session(token, csrf) == {"session": first["session"], "new_access_token": None}
    assert functions.get_session(token, False)["session"]["handle"] == handle
    fails(RekindleGeneralException, lambda: functions.get_session(token, None))
    fails(RekindleTryRefreshTokenException, lambda: functions.get_session(token, "wrong"))
    fails(RekindleTryRefreshTokenException, lambda: functions.get_session("damaged", False))
    fails(RekindleGeneralException, lambda: functions.create_new_session(True))
    fails(RekindleGeneralException, lambda: functions.create_new_session("alice", {"x": "y" * 5000}))

    second = functions.refresh_session(first["refresh_token"]["value"])
    assert second["session"]["handle"] == handle
    third = functions.refresh_session(second["new_refresh_token"]["value"])
    assert third["new_anti_csrf_token"] != csrf
    functions.get_session(third["new_access_token"]["value"], False)
    fourth = functions.refresh_session(third["new_refresh_token"]["value"])
    assert functions.get_session_info(handle) == {"cart": [1]}
    functions.update_session_info(handle, {"note": "x"})
    assert functions.get_session_info(handle) == {"note": "x"}
    assert functions.get_all_session_handles_for_user(7) == [handle]

    # A thief who comes late is seen; the session is over already.
    theft = fails(RekindleTokenTheftException, lambda: functions.refresh_session(first["refresh_token"]["value"]))
    assert (theft.get_user_id(), theft.get_session_handle()) == ("7", handle)
    fails(RekindleUnauthorizedException, lambda: functions.refresh_session(fourth["new_refresh_token"]["value"]))
    fails(RekindleUnauthorizedException, lambda: functions.get_session_info(handle))
    fails(RekindleUnauthorizedException, lambda: functions.update_session_info(handle, {}))
    fails(RekindleUnauthorizedException, lambda: functions.refresh_session("damaged"))
    assert functions.revoke_session(handle) is False
    assert functions.revoke_session("no-handle") is False
    other = functions.create_new_session("bob")["session"]["handle"]
    assert functions.revoke_session(other) is True
    functions.create_new_session("bob")
    assert functions.revoke_all_sessions_for_user("bob") == 1
    assert functions.remove_expired_tokens() == 0

"""A Django project by the documents: `seed_django.py <folder>`; prints "ok" in JSON."""

import io
import json
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

folder = Path(sys.argv[1])
settings.configure(
    SECRET_KEY="x",
    DEBUG=True,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["rekindle.django.SessionMiddleware"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "rekindle.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}},
    REKINDLE={"DATA_DIR": folder / "data"},
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "DEFAULT_PERMISSION_CLASSES": [], "UNAUTHENTICATED_USER": None},
)
django.setup()

from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.renderers import JSONRenderer  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from rekindle.django import functions as rekindle  # noqa: E402
from rekindle.exceptions import (  # noqa: E402
    RekindleGeneralException,
    RekindleTokenTheftException,
    RekindleTryRefreshTokenException,
    RekindleUnauthorizedException,
)

thefts = []


class Refresh(APIView):
    renderer_classes = [JSONRenderer]

    def post(self, request):
        response = Response()
        try:
            rekindle.refresh_session(request, response)
        except RekindleGeneralException:
            response.status_code = 500
            response.data = "Something went wrong"
            return response
        except RekindleUnauthorizedException:
            response.status_code = 440
            response.data = "Session expired! Please login again"
            return response
        except RekindleTokenTheftException as e:
            # we have detected token theft!
            # get the affected user details
            user_id = e.get_user_id()
            session_handle = e.get_session_handle()
            # we can now revoke this session or all sessions belonging to this user.
            # we can also alert this user if needed.
            thefts.append((user_id, session_handle))
            response.status_code = 440
            response.data = "Session expired! Please login again"
            return response

        # on success
        response.status_code = 200
        response.data = "Successful refreshing of session!"
        return response


class Session(APIView):
    renderer_classes = [JSONRenderer]

    def post(self, request):
        response = Response({})
        session = rekindle.create_new_session(response, request.data["user"], {"role": "admin"}, {"cart": [1]})
        response.data = session.get_handle()
        return response

    def get(self, request):
        response = Response()
        try:
            session = rekindle.get_session(request, response, True)
        except RekindleTryRefreshTokenException:
            response.status_code, response.data = 440, "try refresh token"
            return response
        except RekindleUnauthorizedException:
            response.status_code, response.data = 440, "unauthorised"
            return response
        info = session.get_session_info()
        session.update_session_info({**info, "seen": True})
        response.data = [session.get_user_id(), session.get_jwt_payload(), info]
        return response

    def delete(self, request):
        response = Response()
        response.data = rekindle.get_session(request, response, True).revoke_session()
        return response

    def options(self, request):
        response = Response()
        rekindle.set_headers_for_options_api(response)
        return response


urlpatterns = [path("api/refresh", Refresh.as_view()), path("session", Session.as_view())]

OWN = {"HTTP_HOST": "localhost", "HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_REKINDLE_REQUEST": "1"}
browser = Client()


def ask(method, where, **more):
    answer = getattr(browser, method)(where, content_type="application/json", **OWN, **more)
    return answer.status_code, answer.json() if answer.content else None


# Nobody is signed in.
assert ask("post", "/api/refresh") == (440, "Session expired! Please login again")
assert ask("get", "/session")[0] == 440
status, handle = ask("post", "/session", data={"user": "alice"})
assert status == 200 and len(handle) == 36
assert ask("get", "/session") == (200, ["alice", {"role": "admin"}, {"cart": [1]}])
assert ask("get", "/session") == (200, ["alice", {"role": "admin"}, {"cart": [1], "seen": True}])

stolen = browser.cookies["rekindle-refresh"].value
for _ in range(3):
    assert ask("post", "/api/refresh") == (200, "Successful refreshing of session!")
    assert ask("get", "/session")[0] == 200
assert browser.cookies["rekindle-refresh"].value != stolen
assert rekindle.get_all_session_handles_for_user("alice") == [handle]

# Without an access token the session is refreshed.
access = browser.cookies.pop("rekindle-access")
assert ask("get", "/session") == (440, "try refresh token")
browser.cookies["rekindle-access"] = access.value

# A thief has a token of before.
thief = Client()
thief.cookies["rekindle-refresh"] = stolen
assert thief.post("/api/refresh", **OWN).status_code == 440
assert thefts == [("alice", handle)], thefts
# The session is over for everybody; its cookies are taken back.
assert ask("post", "/api/refresh") == (440, "Session expired! Please login again")
assert all(not morsel.value for morsel in browser.cookies.values()), browser.cookies

browser = Client()
status, handle = ask("post", "/session", data={"user": "bob"})
assert ask("delete", "/session") == (200, True)
assert all(not morsel.value for morsel in browser.cookies.values()), browser.cookies
assert rekindle.revoke_session(handle) is False
allowed = browser.options("/session", **OWN).headers["Access-Control-Allow-Headers"]
assert "rekindle-proof" in allowed

said = io.StringIO()
call_command("sweepsessions", stdout=said)
assert said.getvalue() == "removed 0 rows\n", said.getvalue()
print(json.dumps("ok"))

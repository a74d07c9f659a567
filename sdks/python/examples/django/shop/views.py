"""Pages in Django, and an API in Django REST framework."""

from html import escape
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from rekindle import Session
from rekindle.django import session_if_any, session_required, sign_in


def login(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return html("<form method=post><label>Name <input name=user autofocus></label> <button>Sign in</button></form>")
    # A real application checks a password here.
    sign_in(request, user_id=request.POST["user"], remember=request.POST.get("remember") != "no")
    return HttpResponseRedirect("/", status=303)


@session_required
def logout(request: Any) -> HttpResponse:
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    request.rekindle_session.sign_out()
    return HttpResponseRedirect("/", status=303)


def home(request: HttpRequest) -> HttpResponse:
    session = session_if_any(request)
    if session is None:
        into = "Nobody is signed in, or the access token has expired. <a href=/login>Sign in</a> or see <a href=/page>your page</a>."
        return html(f"<p>{into}</p>")
    return html(f"<p>Signed in as {escape(session.user_id)}.</p><form method=post action=/logout><button>Sign out</button></form>")


# An expired access token is refreshed by the page that the middleware answers with.
@session_required
def page(request: Any) -> HttpResponse:
    session = request.rekindle_session
    return html(f"<p id=user>{escape(session.user_id)}</p><p id=generation>{session.says.generation}</p>")


# An expired access token does not matter here.
@session_required(mint=True)
def rendered(request: Any) -> HttpResponse:
    return html(f"<p id=user>{escape(request.rekindle_session.user_id)}</p>")


@session_required(trust="online")
def me_online(request: Any) -> HttpResponse:
    return JsonResponse(told(request.rekindle_session))


class Me(APIView):
    """Who is signed in; `request.user` is the user, `request.auth` the session."""

    def get(self, request: Request) -> Response:
        return Response(told(request.auth))

    def patch(self, request: Request) -> Response:
        changed = request.auth.patch(data=request.data.get("data"), claims=request.data.get("claims"))
        return Response({"data": changed.data, "claims": changed.claims, "version": changed.version})


class Elevate(APIView):
    """A real application asks for the password, or a second factor, again."""

    def post(self, request: Request) -> Response:
        request.auth.elevate(acr="aal2", amr=["pwd", "otp"])
        return Response(status=204)


def told(session: Session) -> dict[str, Any]:
    says = session.says
    return {
        "user_id": session.user_id,
        "session_id": session.id,
        "generation": says.generation,
        "claims": says.claims,
        "acr": says.auth.acr,
    }


def html(body: str) -> HttpResponse:
    return HttpResponse(f"<!doctype html><meta charset=utf-8><title>Rekindle with Django</title>{body}")

"""The tests' application on Django, for WSGI and ASGI."""

import os
from pathlib import Path

import django
from django.conf import settings

DATA = Path(os.environ["DATA"])
settings.configure(
    SECRET_KEY="x",
    DEBUG=True,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["rekindle.django.SessionMiddleware"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "rekindle.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "db.sqlite3"}},
    REKINDLE={"DATA_DIR": DATA / "data", "ORIGINS": ["http://localhost:5173"]},
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["rekindle.django.rest.SessionAuthentication"]},
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

from rekindle.django import session_if_any, session_required, sign_in  # noqa: E402

call_command("migrate", verbosity=0)
User.objects.get_or_create(pk=1, username="ada")


def login(request):
    sign_in(request, user_id=request.GET["user"])
    return JsonResponse({})


@session_required
def me(request):
    return JsonResponse({"user": request.rekindle_session.user_id})


@session_required
async def aio_me(request):
    return JsonResponse({"user": request.rekindle_session.user_id})


@session_required(mint=True)
def rendered(request):
    return JsonResponse({"user": request.rekindle_session.user_id})


def maybe(request):
    session = session_if_any(request)
    return JsonResponse({"user": session and session.user_id})


@session_required
def change(request):
    session = request.rekindle_session
    if "claim" in request.GET:
        session.patch(claims={"claim": request.GET["claim"]})
    return JsonResponse(session.patch(data={"note": request.GET["note"]}).data)


@session_required
async def elevate(request):
    await request.rekindle_session.elevate(acr="aal2")
    return JsonResponse({})


@session_required
def logout(request):
    request.rekindle_session.sign_out()
    return JsonResponse({})


class Rest(APIView):
    permission_classes = [IsAuthenticated]

    def get(self, request):
        return Response({"user": request.user.username, "session": request.auth.user_id})


urlpatterns = [
    path("login", login),
    path("me", me),
    path("aio/me", aio_me),
    path("rendered", rendered),
    path("maybe", maybe),
    path("change", change),
    path("elevate", elevate),
    path("logout", logout),
    path("rest", Rest.as_view()),
]
wsgi, asgi = get_wsgi_application(), get_asgi_application()

"""An app on Django."""

import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from sdk import listening, start
from werkzeug.serving import make_server

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=["supertokens_python.framework.django.django_middleware.middleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)
start("django", "wsgi")

from routes import GUARDED, OPEN  # noqa: E402  These need the settings.
from supertokens_python.recipe.session.framework.django.syncio import verify_session  # noqa: E402


def body_of(request):
    return json.loads(request.body) if request.body else None


def open_view(answer):
    return lambda request: JsonResponse(answer(request, body_of(request), request.GET), safe=False)


def guarded_view(answer, options):
    return verify_session(**options)(
        lambda request: JsonResponse(answer(request.supertokens, body_of(request)), safe=False)
    )


views = {where: open_view(answer) for where, answer in OPEN.items()}
views |= {where: guarded_view(*guarded) for where, guarded in GUARDED.items()}


def by_method(where):
    return lambda request: views[request.method, where](request)


urlpatterns = [path(where.removeprefix("/"), by_method(where)) for where in {where for _, where in views}]

server = make_server("127.0.0.1", 0, get_wsgi_application(), threaded=True)
listening(server.port)
server.serve_forever()

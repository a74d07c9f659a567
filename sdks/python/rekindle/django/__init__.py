"""Sessions in Django: `rekindle.django` among INSTALLED_APPS, `rekindle.django.SessionMiddleware` first of MIDDLEWARE, and settings.REKINDLE.

- `session_required`: a view that only requests with a session reach; `session`, `session_if_any`: a request's;
- `sign_in`: starts one; `rekindle`, `web`: the handle and its web, as settings.REKINDLE says;
- `rekindle.django.rest.SessionAuthentication`: for Django REST framework;
- `rekindle.django.functions`: the function names of earlier session libraries;
- `manage.py sweepsessions`: removes what is over from the store.
"""

from .conf import rekindle, web
from .middleware import SessionMiddleware
from .views import asession, asession_if_any, asign_in, session, session_if_any, session_required, sign_in

__all__ = [
    "SessionMiddleware",
    "asession",
    "asession_if_any",
    "asign_in",
    "rekindle",
    "session",
    "session_if_any",
    "session_required",
    "sign_in",
    "web",
]

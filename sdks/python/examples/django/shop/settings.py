"""A Django project with sessions: `pip install rekindle django djangorestframework gunicorn && gunicorn shop.wsgi`, then
http://localhost:3000.

The engine is in the workers, on SQLite beside the project's own database. What tests want otherwise comes from the environment: `PORT` (0:
any), `DATA` (a folder), `DEFINITION` (a change of the session definition, in JSON), `REKINDLE_SERVER` and `REKINDLE_API_KEY` (sessions on
servers).
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DATA", BASE_DIR))
SECRET_KEY = "a real project has one of its own"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "db.sqlite3"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "rekindle.django"]

# First, so that every answer has what sessions need. It checks where requests come from, as Django's own tokens do.
MIDDLEWARE = ["rekindle.django.SessionMiddleware", "django.middleware.common.CommonMiddleware"]

REKINDLE = {"DATA_DIR": DATA / "rekindle-data"}
if "REKINDLE_SERVER" in os.environ:
    REKINDLE = {"SERVER": os.environ["REKINDLE_SERVER"].split(","), "API_KEY": os.environ["REKINDLE_API_KEY"]}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["shop.visitors.Visitors"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

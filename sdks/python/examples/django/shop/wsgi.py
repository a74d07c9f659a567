"""For gunicorn and other WSGI servers."""

import json
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()

if "DEFINITION" in os.environ:
    from rekindle.django import rekindle

    rekindle().define({"tag": "default", **json.loads(os.environ["DEFINITION"])})

"""For gunicorn and other WSGI servers."""

import json
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()

if "DEFINITION" in os.environ:
    from rekindle import RekindleError
    from rekindle.django import rekindle

    definition = {"tag": "default", **json.loads(os.environ["DEFINITION"])}
    while True:
        try:
            rekindle().define(definition)
            break
        except RekindleError as error:
            # Another worker was changing it at the same moment.
            if error.code not in ("version_mismatch", "conflict"):
                raise

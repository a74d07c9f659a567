"""`gunicorn shop.wsgi` reads this."""

import os
from typing import Any

bind = f"127.0.0.1:{os.environ.get('PORT', '3000')}"
workers = 2
threads = 4
loglevel = "warning"


def when_ready(server: Any) -> None:
    """Says where it listens."""
    print(f"Listening on http://localhost:{server.LISTENERS[0].getsockname()[1]}", flush=True)

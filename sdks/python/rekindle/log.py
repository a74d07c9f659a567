"""What Rekindle logs, in Python's own log: the logger `rekindle`. Neither a message nor a field holds a token, an opening or a key.

Outages of a store or server, and their end. What a line is about is in the record's `fields`, too.
"""

import json
import logging

from . import _native

logger = logging.getLogger("rekindle")
# Nothing is printed unless the application has set up its log.
logger.addHandler(logging.NullHandler())

_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO}


def _line(level: str, message: str, fields: str) -> None:
    about = json.loads(fields)
    text = ", ".join(f"{name}={value}" for name, value in about.items())
    logger.log(_LEVELS[level], "%s (%s)" if text else "%s", *([message, text] if text else [message]), extra={"fields": about})


_native.on_log(_line)

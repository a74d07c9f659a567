"""settings.REKINDLE, by the names of `Rekindle.embedded`, `Rekindle.remote` and `Rekindle.web` in capitals.

SERVER and API_KEY: sessions on servers. Otherwise the engine is in the application's processes, by default on the database `default` of
settings.DATABASES: in PostgreSQL in a schema `rekindle` beside the application's, for SQLite in `rekindle.db` in the folder of the
application's file. Or STORE says where, as it has to on MySQL. DEVELOPMENT is settings.DEBUG by default; otherwise SECRETS, or a file
`secrets` in DATA_DIR (BASE_DIR/rekindle-data by default), has the master secrets.
"""

from __future__ import annotations

import functools
import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..errors import RekindleError
from ..handle import Rekindle
from ..web import Web

_PLACE = ("product", "env", "tag")
_EMBEDDED = ("store", "data_dir", "secrets", "development", "issuer")
_REMOTE = ("server", "api_key", "issuer", "audience", "connect_timeout", "timeout")
_WEB = (
    "base",
    "cookies",
    "same_site",
    "prefix",
    "development",
    "origins",
    "sign_in",
    "fresh_for",
    "ended_as_440",
    "trust",
    "csrf_key",
)


@functools.cache
def rekindle() -> Rekindle:
    """The sessions that settings.REKINDLE says. ImproperlyConfigured."""
    given = _given()
    place = _named(given, _PLACE)
    if "server" in given:
        return Rekindle.remote(**_named(given, _REMOTE), **place)
    options = _named(given, _EMBEDDED)
    if "data_dir" not in options and hasattr(settings, "BASE_DIR"):
        options["data_dir"] = Path(settings.BASE_DIR) / "rekindle-data"
    if "store" not in options:
        options["store"] = _store_of(settings.DATABASES.get("default", {}))
    return Rekindle.embedded(**options, **place)


@functools.cache
def web() -> Web:
    """Their web. ImproperlyConfigured."""
    try:
        return rekindle().web(**_named(_given(), _WEB))
    except RekindleError as error:
        raise ImproperlyConfigured(f"settings.REKINDLE: {error.detail}") from None


def _given() -> dict[str, Any]:
    given = {name.lower(): value for name, value in getattr(settings, "REKINDLE", {}).items()}
    unknown = given.keys() - {*_PLACE, *_EMBEDDED, *_REMOTE, *_WEB}
    if unknown:
        raise ImproperlyConfigured(f"settings.REKINDLE has no {', '.join(sorted(unknown)).upper()}: see rekindle.django.conf")
    return {"development": settings.DEBUG, **given}


def _named(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _store_of(database: Mapping[str, Any]) -> str | None:
    """The URL of an application's database, as a store; None: SQLite in the data directory."""
    engine = str(database.get("ENGINE", "")).rpartition(".")[2]
    name, user, password = (str(database.get(key) or "") for key in ("NAME", "USER", "PASSWORD"))
    host, port = (str(database.get(key) or "") for key in ("HOST", "PORT"))
    if engine == "sqlite3":
        # What is in memory is nowhere else.
        in_memory = ":memory:" in name or "mode=memory" in name
        return None if in_memory else f"sqlite:{Path(name).resolve().parent / 'rekindle.db'}"
    if engine == "mysql":
        raise ImproperlyConfigured(
            f"settings.REKINDLE needs a STORE: on MySQL, sessions have a database of their own, whose tables would meet those of {name!r} "
            f"otherwise. Make one, and set STORE to mysql://{quote(user)}:<password>@{host or '127.0.0.1'}:{port or 3306}/<database>"
        )
    if engine not in ("postgresql", "postgis"):
        return None
    options = database.get("OPTIONS") or {}
    # Of libpq's modes those that say what they do; `prefer` and `allow` are the default here, which verifies.
    sslmode = "verify-full" if options.get("sslmode") == "verify-ca" else options.get("sslmode")
    query = {"sslmode": sslmode if sslmode in ("disable", "require", "verify-full") else None, "sslrootcert": options.get("sslrootcert")}
    if not host or host.startswith("/"):
        # Where Debian's server has its socket.
        query["host"] = host or "/var/run/postgresql"
        host = ""
    elif ":" in host:
        host = f"[{host}]"
    given = {key: value for key, value in query.items() if value}
    # As libpq has it.
    user = user or getpass.getuser()
    login = f"{quote(user, safe='')}{':' + quote(password, safe='') if password else ''}@"
    return f"postgres://{login}{host}{':' + port if port and host else ''}/{quote(name)}{'?' if given else ''}{urlencode(given)}"

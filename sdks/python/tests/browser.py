"""A browser's share in cookies and headers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Asked:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: Any


class Browser:
    """Keeps cookies, and says where its requests come from."""

    def __init__(self, base: str) -> None:
        self._host = urlsplit(base).netloc
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None) -> Asked:
        """A request on a connection of its own."""
        connection = HTTPConnection(self._host, timeout=60)
        sent = {"host": f"localhost:{self._host.partition(':')[2]}", "sec-fetch-site": "same-origin"}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request(method, path, body=body, headers={**sent, **(headers or {})})
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        for line in answer.headers.get_all("set-cookie") or []:
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        found = {name.lower(): ", ".join(answer.headers.get_all(name) or []) for name in answer.headers}
        return Asked(answer.status, found, json.loads(content) if "json" in found.get("content-type", "") else content)

    def refresh(self) -> Asked:
        """What `rekindle-web` asks for."""
        return self.ask("POST", "/auth/session/refresh", {"rekindle-request": "1"})

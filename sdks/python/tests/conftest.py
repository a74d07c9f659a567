"""Where the tests keep their sessions, and a summary in the words of the other tests."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rekindle import Rekindle

HERE = Path(__file__).parent


class Awaited:
    """An asynchronous object, as one that blocks: its loop runs in a thread of its own."""

    _loop = asyncio.new_event_loop()
    threading.Thread(target=_loop.run_forever, daemon=True).start()

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return Awaited(found) if type(found).__name__.startswith("Async") else found

        def called(*args: Any, **kwargs: Any) -> Any:
            given = found(*args, **kwargs)
            if inspect.isawaitable(given):
                given = asyncio.run_coroutine_threadsafe(_waiting(given), self._loop).result(60)
            return Awaited(given) if type(given).__name__.startswith("Async") else given

        return called


async def _waiting(awaitable: Any) -> Any:
    return await awaitable


@contextmanager
def program(*command: str, env: dict[str, str], address: str, cwd: Path | None = None) -> Iterator[re.Match[str]]:
    """A program that says where it listens, ended with all that it started."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
    running = subprocess.Popen(
        command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said: list[str] = []
    try:
        assert running.stdout is not None
        for line in running.stdout:
            said.append(line)
            if found := re.search(address, line):
                break
        else:
            pytest.fail(f"{command} ended: {''.join(said)}")
        # Whoever does not read what it says would block it.
        threading.Thread(target=lambda: said.extend(running.stdout or ()), daemon=True).start()
        yield found
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`rekindle serve --dev`: its URL and an API key."""
    folder = tmp_path_factory.mktemp("served")
    command = [os.environ["REKINDLE"], "serve", "--dev", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        said: dict[str, str] = {}
        for line in server.stdout:
            if found := re.match(r"(Listening on|API key:) (\S+)$", line):
                said[found[1]] = found[2]
            if "API key:" in said:
                break
        yield said["Listening on"], said["API key:"]
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module", params=["embedded", "embedded, awaited", "remote", "remote, awaited"])
def rekindle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, served: tuple[str, str]) -> Any:
    """A handle of each kind."""
    if request.param.startswith("embedded"):
        handle = Rekindle.embedded(data_dir=tmp_path_factory.mktemp("data") / "data", development=True)
    else:
        handle = Rekindle.remote(served[0], api_key=served[1])
        # Its keys are fetched ahead, but not before this.
        handle.start(user_id="first")
    return Awaited(handle.aio) if request.param.endswith("awaited") else handle


def python(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a program in Python prints; it must end well."""
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Appends the counts to the file REKINDLE_TAP, as the tests in JavaScript say them."""
    if path := os.environ.get("REKINDLE_TAP"):
        stats = terminalreporter.stats
        passed, failed = len(stats.get("passed", ())), len(stats.get("failed", ())) + len(stats.get("error", ()))
        with open(path, "a") as tap:
            tap.write(f"# pass {passed}\n# fail {failed}\n")

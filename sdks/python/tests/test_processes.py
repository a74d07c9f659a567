"""Processes and forks on one store; and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import HERE, program, python

PROGRAMS = HERE / "programs"
TIMES = 10 if os.environ.get("REKINDLE_FULL") else 1


def test_processes_share_a_store(tmp_path: Path) -> None:
    lives = [
        subprocess.Popen([sys.executable, str(PROGRAMS / "life.py"), str(tmp_path / "data")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [life.communicate(timeout=120)[0].strip() for life in lives] == ["ok"] * 4


def test_one_build_serves_every_version_of_python(tmp_path: Path) -> None:
    """Those that are here: the interpreter of the tests, what is on the path, and what pyenv has."""
    named = [f"python3.{minor}" for minor in range(10, 16)]
    kept = (Path.home() / ".pyenv/versions").glob("3.1[0-9].*/bin/python")
    found = {}
    for name in [sys.executable, *filter(shutil.which, named), *map(str, kept)]:
        said = subprocess.run([name, "--version"], capture_output=True, text=True)
        # pyenv answers for versions that are not chosen, too.
        if said.returncode == 0:
            found[said.stdout.strip()] = name
    for version, name in found.items():
        done = subprocess.run([name, str(PROGRAMS / "life.py"), str(tmp_path / "data")], capture_output=True, text=True, timeout=120)
        assert done.stdout == "ok\n", f"{version}: {done.stderr}"
    print(*found, sep=", ")


def test_forks_have_sessions_of_their_own(tmp_path: Path) -> None:
    assert python(str(PROGRAMS / "forks.py"), str(tmp_path / "data")).split() == ["ok"] * 4


def test_a_fork_of_an_open_sqlite_store_says_so(tmp_path: Path) -> None:
    assert "forked after its SQLite store had been opened" in python(str(PROGRAMS / "forks.py"), str(tmp_path / "data"), "opened")


def test_a_fork_goes_on_with_servers(served: tuple[str, str]) -> None:
    assert python(str(PROGRAMS / "forks.py"), *served).split() == ["ok"] * 4


def test_an_application_may_end_while_sessions_are_busy(tmp_path: Path) -> None:
    script = (
        "import sys, threading, time, rekindle\n"
        "sessions = rekindle.Rekindle.embedded(data_dir=sys.argv[1], development=True)\n"
        "sessions.on_revoked(print)\n"
        "busy = lambda: [sessions.start(user_id='a') for _ in range(100_000)]\n"
        "threading.Thread(target=busy, daemon=True).start()\n"
        "time.sleep(1)\n"
    )
    assert python("-c", script, str(tmp_path / "data")) == ""


def test_no_memory_is_kept(tmp_path: Path) -> None:
    more = int(python(str(PROGRAMS / "memory.py"), str(tmp_path / "data"), str(TIMES * 100_000), str(TIMES * 10_000)))
    print(f"{more / 2**20:.1f} MiB more than before, over {TIMES * 100_000} verifications and {TIMES * 10_000} refreshes")
    assert more < 16 * 2**20


def test_workers_of_gunicorn_share_a_store(tmp_path: Path) -> None:
    # With `--preload`, too: the application is loaded before the workers are forked.
    for preload in ([], ["--preload"]):
        command = ["-m", "gunicorn", "--workers", "3", "--threads", "2", "--bind", "127.0.0.1:0", *preload, "workers:app"]
        env = {"DATA": str(tmp_path / "data"), "PYTHONPATH": f"{PROGRAMS}:{os.environ.get('PYTHONPATH', '')}"}
        with program(sys.executable, *command, env=env, address=r"Listening at: (http://\S+)") as found:
            said = python(str(PROGRAMS / "visits.py"), found[1])
        assert int(said) > 1, "more than one worker answered"

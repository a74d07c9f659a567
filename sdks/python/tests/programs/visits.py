"""Visits to an application at a URL; prints how many of its workers were met."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browser import Browser

workers = set()
for turn in range(30):
    browser = Browser(sys.argv[1])
    assert browser.ask("POST", f"/login?user=user-{turn}").status == 200
    for _ in range(3):
        me = browser.ask("GET", "/me")
        assert me.body["user"] == f"user-{turn}", me
        workers.add(me.body["worker"])
        refreshed = browser.refresh()
        assert refreshed.status == 200, refreshed
print(len(workers))

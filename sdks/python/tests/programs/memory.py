"""How much memory is left over: `memory.py <folder> <verifications> <refreshes>` prints bytes."""

import gc
import resource
import sys
import threading
import time
from pathlib import Path

from rekindle import Rekindle, RekindleError

rekindle = Rekindle.embedded(data_dir=sys.argv[1], development=True)
web = rekindle.web(development=True)
token = rekindle.start(user_id="alice").access_token
headers = [("host", "localhost"), ("authorization", f"Bearer {token}")]


def round_of(verifications: int, refreshes: int) -> int:
    for at in range(verifications):
        rekindle.verify(token, trust="fail-closed" if at % 2 else "fail-open")
        if at % 10 == 0:
            web.visit(method="GET", path="/", headers=headers).session()
        if at % 10 == 1:
            try:
                rekindle.verify("forged")
            except RekindleError:
                pass

    def many() -> None:
        tokens = rekindle.start(user_id="bob")
        for _ in range(refreshes // 20):
            tokens = rekindle.refresh(tokens.refresh_token)

    threads = [threading.Thread(target=many) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


verifications, refreshes = int(sys.argv[2]), int(sys.argv[3])
while rekindle.is_stale:
    time.sleep(0.05)
# What grows to its size once, caches above all, is no leak.
before = round_of(verifications // 2, refreshes // 2)
print(round_of(verifications, refreshes) - before)

"""Forks four times: `forks.py <folder> [opened]`, or `forks.py <url> <api key>`."""

import os
import sys

from rekindle import OpenError, Rekindle

place, *more = sys.argv[1:]
if place.startswith("http"):
    rekindle = Rekindle.remote(place, api_key=more[0])
else:
    rekindle = Rekindle.embedded(data_dir=place, development=True)
if more:
    rekindle.verify(rekindle.start(user_id="parent").access_token)

children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        try:
            for _ in range(5):
                tokens = rekindle.refresh(rekindle.start(user_id=f"child-{number}").refresh_token)
                assert rekindle.verify(tokens.access_token).user_id == f"child-{number}"
            said = "ok"
        except OpenError as error:
            said = str(error)
        # In one piece, beside what the other children say.
        os.write(1, f"{said}\n".encode())
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
if more:
    rekindle.start(user_id="parent")

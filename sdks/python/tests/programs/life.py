"""A session's life on the store in the folder that it is told, beside others who do the same."""

import os
import sys

from rekindle import Rekindle, RekindleError

rekindle = Rekindle.embedded(data_dir=sys.argv[1], development=True)
for turn in range(20):
    first = rekindle.start(user_id=f"user-{os.getpid()}")
    second = rekindle.refresh(first.refresh_token)
    assert rekindle.verify(second.access_token).session_id == first.session.id
    if turn % 2:
        rekindle.revoke(first.session.id)
    else:
        rekindle.sign_out(second.refresh_token)
    try:
        rekindle.verify(second.access_token)
        sys.exit("it is over, and was believed")
    except RekindleError as error:
        assert error.code == "session_revoked", error
print("ok")

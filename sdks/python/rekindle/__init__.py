"""Sessions that no thief can share and no bad network can end: with the engine in your process, or on Rekindle servers.

>>> from rekindle import Rekindle
>>> rekindle = Rekindle.embedded(development=True)  # SQLite in ./rekindle-data
>>> tokens = rekindle.start(user_id="alice", claims={"role": "admin"})
>>> rekindle.verify(tokens.access_token).user_id
'alice'

`AsyncRekindle` has the same methods to be awaited. For requests see `Rekindle.web` and the modules `rekindle.django`, `rekindle.fastapi`
and `rekindle.flask`; `rekindle.functions` has the function names of earlier session libraries.
"""

from . import log as log
from .errors import OpenError, RekindleError
from .handle import AsyncRekindle, Rekindle, Revocation
from .sessions import AsyncSessions, Sessions
from .shapes import Auth, Client, Minted, Page, Proof, SessionInfo, Tokens, Verified, Warning
from .web import Answer, AsyncSession, AsyncVisit, AsyncWeb, Refusal, Session, Visit, Web

__all__ = [
    "Answer",
    "AsyncRekindle",
    "AsyncSession",
    "AsyncSessions",
    "AsyncVisit",
    "AsyncWeb",
    "Auth",
    "Client",
    "Minted",
    "OpenError",
    "Page",
    "Proof",
    "Refusal",
    "Rekindle",
    "RekindleError",
    "Revocation",
    "Session",
    "SessionInfo",
    "Sessions",
    "Tokens",
    "Verified",
    "Visit",
    "Warning",
    "Web",
]

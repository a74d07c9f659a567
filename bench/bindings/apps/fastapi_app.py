"""An application on FastAPI that signs users in and says who calls: with Rekindle, or with as many headers and no sessions. Prints its port.
`FOLDER` is for its files."""

import os
import socket
import sys
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request, Response

from rekindle import AsyncRekindle, AsyncSession
from rekindle.fastapi import Sessions

app = FastAPI()

if sys.argv[1] == "rekindle":
    rekindle = AsyncRekindle.embedded(data_dir=os.path.join(os.environ["FOLDER"], "rekindle"), development=True)
    sessions = Sessions(app, rekindle.web(development=True))

    @app.post("/login")
    async def login(request: Request, user: str) -> dict[str, str]:
        await sessions.sign_in(request, user_id=user)
        return {}

    @app.get("/me")
    async def me(session: Annotated[AsyncSession, Depends(sessions.required)]) -> dict[str, str]:
        return {"user": session.user_id}

else:

    async def passes(response: Response) -> None:
        response.headers["cache-control"] = "private, no-store"
        response.headers["vary"] = "Cookie, Authorization"

    @app.get("/me", dependencies=[Depends(passes)])
    async def nobody() -> dict[str, str]:
        return {"user": "user-0"}


listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listening])

"""An application on FastAPI that signs users in and says who calls: with Rekindle, or with a middleware that adds as many headers, and no
sessions. Prints its port. `FOLDER` is for its files."""

import os
import socket
import sys
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

    class Passes:
        """A middleware that only adds headers."""

        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    headers.append("cache-control", "private, no-store")
                    headers.append("vary", "Cookie, Authorization")
                await send(message)

            await self._app(scope, receive, sending)

    app.add_middleware(Passes)

    async def nobody() -> str:
        return "user-0"

    @app.get("/me")
    async def me(user: Annotated[str, Depends(nobody)]) -> dict[str, str]:
        return {"user": user}


listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listening])

"""The tests' application on FastAPI."""

import asyncio
import os
from typing import Annotated

from fastapi import Depends, FastAPI, Request, WebSocket

from rekindle import AsyncRekindle, AsyncSession
from rekindle.fastapi import Sessions

rekindle = AsyncRekindle.embedded(data_dir=f"{os.environ['DATA']}/data", development=True)
app = FastAPI()
sessions = Sessions(app, rekindle.web(development=True, origins=["http://localhost:5173"]))
Required = Annotated[AsyncSession, Depends(sessions.required)]


@app.post("/login")
async def login(request: Request, user: str):
    await sessions.sign_in(request, user_id=user)
    return {}


@app.get("/me")
@app.get("/aio/me")
async def me(session: Required):
    return {"user": session.user_id}


@app.get("/rendered")
async def rendered(session: Annotated[AsyncSession, Depends(sessions.requiring(mint=True))]):
    return {"user": session.user_id}


@app.get("/maybe")
async def maybe(session: Annotated[AsyncSession | None, Depends(sessions.optional)]):
    return {"user": session and session.user_id}


@app.post("/change")
async def change(session: Required, note: str = "", claim: str | None = None):
    if claim is not None:
        await session.patch(claims={"claim": claim})
    return (await session.patch(data={"note": note})).data


@app.post("/elevate")
async def elevate(session: Required):
    await session.elevate(acr="aal2")
    return {}


@app.post("/logout")
async def logout(session: Required):
    await session.sign_out()
    return {}


@app.websocket("/live")
async def live(socket: WebSocket, session: Required):
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    rekindle.on_revoked(lambda revoked: revoked.session_id == session.id and loop.call_soon_threadsafe(ended.set))
    await socket.accept()
    await socket.send_text(session.user_id)
    await ended.wait()
    await socket.send_text("signed out")
    await socket.close()

"""A FastAPI application with sessions: `pip install rekindle fastapi uvicorn python-multipart && python app.py`, then http://localhost:3000.

The engine is in this process, on SQLite. What tests want otherwise comes from the environment: `PORT` (0: any), `DATA` (a folder),
`DEFINITION` (a change of the session definition, in JSON), `REKINDLE_SERVER` and `REKINDLE_API_KEY` (sessions on servers).
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from rekindle import AsyncRekindle, AsyncSession
from rekindle.fastapi import Sessions

if "REKINDLE_SERVER" in os.environ:
    rekindle = AsyncRekindle.remote(os.environ["REKINDLE_SERVER"].split(","), api_key=os.environ["REKINDLE_API_KEY"])
else:
    rekindle = AsyncRekindle.embedded(data_dir=os.environ.get("DATA", "./rekindle-data"), development=True)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    # What is wrong with the store is seen now, and not by the first visitor.
    await rekindle.open()
    if "DEFINITION" in os.environ:
        await rekindle.define({"tag": "default", **json.loads(os.environ["DEFINITION"])})
    yield


app = FastAPI(lifespan=lifespan)
sessions = Sessions(app, rekindle.web(development=True))
Required = Annotated[AsyncSession, Depends(sessions.required)]


# A real application checks a password here.
@app.post("/login")
async def login(request: Request, user: Annotated[str, Form()], remember: Annotated[str, Form()] = "yes") -> RedirectResponse:
    await sessions.sign_in(request, user_id=user, remember=remember != "no")
    return RedirectResponse("/", 303)


@app.post("/logout")
async def logout(session: Required) -> RedirectResponse:
    await session.sign_out()
    return RedirectResponse("/", 303)


@app.get("/")
async def home(session: Annotated[AsyncSession | None, Depends(sessions.optional)]) -> HTMLResponse:
    if session is None:
        into = "Nobody is signed in, or the access token has expired. <a href=/login>Sign in</a> or see <a href=/page>your page</a>."
        return html(f"<p>{into}</p>")
    return html(f"<p>Signed in as {escape(session.user_id)}.</p><form method=post action=/logout><button>Sign out</button></form>")


@app.get("/login")
async def login_page() -> HTMLResponse:
    return html("<form method=post><label>Name <input name=user autofocus></label> <button>Sign in</button></form>")


# An expired access token is refreshed by the page that `required` answers with.
@app.get("/page")
async def page(session: Required) -> HTMLResponse:
    return html(f"<p id=user>{escape(session.user_id)}</p><p id=generation>{session.says.generation}</p>")


# An expired access token does not matter here.
@app.get("/rendered")
async def rendered(session: Annotated[AsyncSession, Depends(sessions.requiring(mint=True))]) -> HTMLResponse:
    return html(f"<p id=user>{escape(session.user_id)}</p>")


@app.get("/api/me")
async def me(session: Required) -> dict[str, Any]:
    return told(session)


@app.get("/api/me/online")
async def me_online(session: Annotated[AsyncSession, Depends(sessions.requiring(trust="online"))]) -> dict[str, Any]:
    return told(session)


class Change(BaseModel):
    data: dict[str, Any] | None = None
    claims: dict[str, Any] | None = None


@app.patch("/api/me")
async def change_me(session: Required, change: Change) -> dict[str, Any]:
    changed = await session.patch(data=change.data, claims=change.claims)
    return {"data": changed.data, "claims": changed.claims, "version": changed.version}


# A real application asks for the password, or a second factor, again.
@app.post("/api/elevate", status_code=204)
async def elevate(session: Required) -> None:
    await session.elevate(acr="aal2", amr=["pwd", "otp"])


def told(session: AsyncSession) -> dict[str, Any]:
    says = session.says
    return {
        "user_id": session.user_id,
        "session_id": session.id,
        "generation": says.generation,
        "claims": says.claims,
        "acr": says.auth.acr,
    }


def html(body: str) -> HTMLResponse:
    return HTMLResponse(f"<!doctype html><meta charset=utf-8><title>Rekindle with FastAPI</title>{body}")


if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=int(os.environ.get("PORT", "3000")), log_level="warning")
    socket = config.bind_socket()
    print(f"Listening on http://localhost:{socket.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[socket])

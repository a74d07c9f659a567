"""An app on FastAPI."""

import socket

import uvicorn
from fastapi import Body, Depends, FastAPI, Request
from sdk import describe, listening, member, start, with_member
from supertokens_python.framework.fastapi import get_middleware
from supertokens_python.recipe.jwt.asyncio import create_jwt, get_jwks
from supertokens_python.recipe.session import SessionContainer
from supertokens_python.recipe.session import asyncio as sessions
from supertokens_python.recipe.session.framework.fastapi import verify_session
from supertokens_python.types import RecipeUserId

start("fastapi", "asgi")
app = FastAPI()
app.add_middleware(get_middleware())


@app.post("/login")
async def login(request: Request, body: dict):
    tenant, user = body.get("tenant", "public"), RecipeUserId(body["userId"])
    return describe(await sessions.create_new_session(request, tenant, user, body.get("payload"), body.get("data")))


@app.get("/me")
@app.post("/me")
async def me(session: SessionContainer = Depends(verify_session())):
    return describe(session)


@app.post("/logout")
async def logout(session: SessionContainer = Depends(verify_session())):
    await session.revoke_session()
    return {}


@app.get("/data")
async def data(session: SessionContainer = Depends(verify_session())):
    return await session.get_session_data_from_database()


@app.put("/data")
async def set_data(body: dict, session: SessionContainer = Depends(verify_session())):
    await session.update_session_data_in_database(body)
    return {}


@app.put("/payload")
async def set_payload(body: dict, session: SessionContainer = Depends(verify_session())):
    await session.merge_into_access_token_payload(body)
    return {}


@app.get("/sessions")
async def sessions_of(userId: str):
    return await sessions.get_all_session_handles_for_user(userId)


@app.get("/information")
async def information(handle: str):
    return (await sessions.get_session_information(handle)).to_json()


@app.post("/revoke")
async def revoke(handle: str = Body(embed=True)):
    return {"revoked": await sessions.revoke_session(handle)}


@app.post("/revoke-all")
async def revoke_all(userId: str = Body(embed=True)):
    return {"revoked": await sessions.revoke_all_sessions_for_user(userId)}


@app.get("/in-force")
async def in_force(session: SessionContainer = Depends(verify_session(check_database=True))):
    return describe(session)


@app.post("/join")
async def join(session: SessionContainer = Depends(verify_session())):
    await session.set_claim_value(member, True)
    return {}


@app.get("/members")
async def members(session: SessionContainer = Depends(verify_session(override_global_claim_validators=with_member))):
    return describe(session)


@app.post("/jwt")
async def make_jwt(body: dict):
    return {"jwt": (await create_jwt(body, 60)).jwt}


@app.get("/keys")
async def keys():
    return {"keys": [vars(key) for key in (await get_jwks()).keys]}


listener = socket.create_server(("127.0.0.1", 0))
listening(listener.getsockname()[1])
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])

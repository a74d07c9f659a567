"""The tests' application on Flask."""

import os

from flask import Flask, request

from rekindle import Rekindle
from rekindle.flask import Sessions

rekindle = Rekindle.embedded(data_dir=f"{os.environ['DATA']}/data", development=True)
app = Flask(__name__)
sessions = Sessions(app, rekindle.web(development=True, origins=["http://localhost:5173"]))


@app.post("/login")
def login():
    sessions.sign_in(user_id=request.args["user"])
    return {}


@app.get("/me")
@app.get("/aio/me", endpoint="aio")
@sessions.required
def me():
    return {"user": sessions.session().user_id}


@app.get("/rendered")
@sessions.required(mint=True)
def rendered():
    return {"user": sessions.session(mint=True).user_id}


@app.get("/maybe")
def maybe():
    session = sessions.session_if_any()
    return {"user": session and session.user_id}


@app.post("/change")
@sessions.required
def change():
    session = sessions.session()
    if "claim" in request.args:
        session.patch(claims={"claim": request.args["claim"]})
    return session.patch(data={"note": request.args["note"]}).data


@app.post("/elevate")
@sessions.required
def elevate():
    sessions.session().elevate(acr="aal2")
    return {}


@app.post("/logout")
@sessions.required
def logout():
    sessions.session().sign_out()
    return {}

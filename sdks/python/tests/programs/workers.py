"""A Flask application for several workers."""

import os

from flask import Flask, request

from rekindle import Rekindle
from rekindle.flask import Sessions

app = Flask(__name__)
sessions = Sessions(app, Rekindle.embedded(data_dir=os.environ["DATA"], development=True).web(development=True))


@app.post("/login")
def login():
    sessions.sign_in(user_id=request.args["user"])
    return {}


@app.get("/me")
@sessions.required(trust="online")
def me():
    return {"user": sessions.session().user_id, "worker": os.getpid()}

"""An app on Flask."""

from flask import Flask, g, jsonify, request
from routes import GUARDED, OPEN
from sdk import listening, start
from supertokens_python.framework.flask import Middleware
from supertokens_python.recipe.session.framework.flask import verify_session
from werkzeug.serving import make_server

start("flask", "wsgi")
app = Flask(__name__)
Middleware(app)


def open_view(answer):
    return lambda: jsonify(answer(request, request.get_json(silent=True), request.args))


def guarded_view(answer, options):
    return verify_session(**options)(lambda: jsonify(answer(g.supertokens, request.get_json(silent=True))))


views = {where: open_view(answer) for where, answer in OPEN.items()}
views |= {where: guarded_view(*guarded) for where, guarded in GUARDED.items()}
for (method, path), view in views.items():
    app.add_url_rule(path, f"{method} {path}", view, methods=[method])

server = make_server("127.0.0.1", 0, app, threaded=True)
listening(server.port)
server.serve_forever()

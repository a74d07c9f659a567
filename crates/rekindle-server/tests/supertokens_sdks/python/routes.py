"""What the apps on Flask and Django offer: to anyone, and to who has a session."""

from sdk import describe, member, with_member
from supertokens_python.recipe.jwt.syncio import create_jwt, get_jwks
from supertokens_python.recipe.session import syncio as sessions
from supertokens_python.types import RecipeUserId


def login(request, body, _):
    user = RecipeUserId(body["userId"])
    return describe(sessions.create_new_session(request, "public", user, body.get("payload"), body.get("data")))


def sessions_of(_request, _body, query):
    return sessions.get_all_session_handles_for_user(query["userId"])


def information(_request, _body, query):
    return sessions.get_session_information(query["handle"]).to_json()


def revoke(_request, body, _query):
    return {"revoked": sessions.revoke_session(body["handle"])}


def revoke_all(_request, body, _query):
    return {"revoked": sessions.revoke_all_sessions_for_user(body["userId"])}


def make_jwt(_request, body, _query):
    return {"jwt": create_jwt(body, 60).jwt}


def keys(*_):
    return {"keys": [vars(key) for key in get_jwks().keys]}


def me(session, _):
    return describe(session)


def logout(session, _):
    session.sync_revoke_session()
    return {}


def data(session, _):
    return session.sync_get_session_data_from_database()


def set_data(session, body):
    session.sync_update_session_data_in_database(body)
    return {}


def set_payload(session, body):
    session.sync_merge_into_access_token_payload(body)
    return {}


def join(session, _):
    session.sync_set_claim_value(member, True)
    return {}


# By method and path: what answers from request, body and query.
OPEN = {
    ("POST", "/login"): login,
    ("GET", "/sessions"): sessions_of,
    ("GET", "/information"): information,
    ("POST", "/revoke"): revoke,
    ("POST", "/revoke-all"): revoke_all,
    ("POST", "/jwt"): make_jwt,
    ("GET", "/keys"): keys,
}

# By method and path: what answers from session and body, and how the session is verified.
GUARDED = {
    ("GET", "/me"): (me, {}),
    ("POST", "/me"): (me, {}),
    ("POST", "/logout"): (logout, {}),
    ("GET", "/data"): (data, {}),
    ("PUT", "/data"): (set_data, {}),
    ("PUT", "/payload"): (set_payload, {}),
    ("POST", "/join"): (join, {}),
    ("GET", "/in-force"): (me, {"check_database": True}),
    ("GET", "/members"): (me, {"override_global_claim_validators": with_member}),
}

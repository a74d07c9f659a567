"""supertokens-python, set up for any framework, with what the test said: in JSON, its argument."""

import json
import sys

from supertokens_python import InputAppInfo, SupertokensConfig, init
from supertokens_python.recipe import jwt, session
from supertokens_python.recipe.session import SessionContainer
from supertokens_python.recipe.session.claims import BooleanClaim

member = BooleanClaim(key="member", fetch_value=lambda *_: False)


def start(framework, mode):
    settings = json.loads(sys.argv[1])
    init(
        app_info=InputAppInfo(
            app_name="app",
            api_domain="http://localhost",
            website_domain="http://localhost",
            api_base_path="/auth",
        ),
        framework=framework,
        mode=mode,
        supertokens_config=SupertokensConfig(connection_uri=";".join(settings["cores"]), api_key=settings.get("apiKey")),
        recipe_list=[session.init(anti_csrf="VIA_TOKEN" if settings["antiCsrf"] else "NONE"), jwt.init()],
        telemetry=False,
    )


def describe(found: SessionContainer):
    return {"userId": found.get_user_id(), "payload": found.get_access_token_payload()}


def with_member(validators, *_):
    return [*validators, member.validators.is_true(None)]


def listening(port):
    print(f"Listening on http://127.0.0.1:{port}", flush=True)

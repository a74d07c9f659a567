// What every app offers, whatever its SDK and framework. The SDK's own answers (401, 403, refresh) are made by the SDK.

"use strict";

exports.routes = (sdk) => {
  const onSession = (work) => async (call) => work(await sdk.session(call.req, call.res), call);
  const all = {
    "POST /login": async ({ req, res, body }) =>
      sdk.describe(await sdk.create(req, res, body.userId, body.payload, body.data, ...(body.tenant ? [body.tenant] : []))),
    "GET /me": onSession((session) => sdk.describe(session)),
    "POST /me": onSession((session) => sdk.describe(session)),
    "POST /logout": onSession(async (session, { res }) => {
      await sdk.end(session, res);
      return {};
    }),
    "GET /data": onSession((session) => sdk.data(session)),
    "PUT /data": onSession(async (session, { body }) => {
      await sdk.setData(session, body);
      return {};
    }),
    "GET /sessions": ({ query }) => sdk.sessionsOf(query.userId),
    "POST /revoke": async ({ body }) => ({ revoked: await sdk.revoke(body.handle) }),
    "POST /revoke-all": async ({ body }) => ({ revoked: await sdk.revokeAll(body.userId) }),
  };
  if (sdk.refresh) {
    all["POST /auth/session/refresh"] = async ({ req, res }) => {
      await sdk.refresh(req, res);
      return {};
    };
  }
  if (sdk.setPayload) {
    all["PUT /payload"] = onSession(async (session, { body, res }) => {
      await sdk.setPayload(session, body, res);
      return {};
    });
  }
  if (sdk.information) all["GET /information"] = ({ query }) => sdk.information(query.handle);
  if (sdk.sessionInForce) {
    all["GET /in-force"] = async ({ req, res }) => sdk.describe(await sdk.sessionInForce(req, res));
  }
  if (sdk.memberSession) {
    all["POST /join"] = onSession(async (session, { res }) => {
      await sdk.join(session, res);
      return {};
    });
    all["GET /members"] = async ({ req, res }) => sdk.describe(await sdk.memberSession(req, res));
  }
  if (sdk.jwt) {
    all["POST /jwt"] = async ({ body }) => ({ jwt: await sdk.jwt(body) });
    all["GET /keys"] = () => sdk.keys();
  }
  return Object.entries(all).map(([name, answer]) => [...name.split(" "), answer]);
};

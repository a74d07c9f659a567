// The published SDKs, each in a small app.

"use strict";

const node = (version, framework, sdk, more) => ({
  name: `supertokens-node ${version} ${framework === "nothing" ? "without a framework" : `on ${framework}`}`,
  language: "node",
  app: { sdk, framework },
  ...more,
});

const python = (framework, more) => ({
  name: `supertokens-python 0.31.4 on ${framework}`,
  language: "python",
  app: { framework },
  payload: true,
  information: true,
  jwt: true,
  claims: true,
  inForce: true,
  headers: true,
  ...more,
});

// What an SDK can do beside the sessions themselves: change the payload of access tokens, say all about a session, make JWTs,
// guard by claims, ask whether a session is in force, carry tokens in headers, be in a tenant. `keyless` ones know no API keys.
exports.clients = [
  node("1.0.0", "express", "1", { keyless: true }),
  node("1.0.0", "nothing", "1-raw", { keyless: true }),
  node("2.5.0", "express", "2", { payload: true }),
  node("4.4.1", "express", "4", { payload: true }),
  node("9.3.1", "express", "9", { payload: true, information: true, jwt: true }),
  node("9.3.1", "koa", "9", { payload: true, information: true, jwt: true }),
  node("13.6.1", "express", "13", { payload: true, information: true, jwt: true, claims: true, headers: true }),
  node("13.6.1", "koa", "13", { payload: true, information: true, jwt: true, claims: true, headers: true }),
  ...["express", "koa"].map((framework) =>
    node("24.0.3", framework, "24", {
      payload: true,
      information: true,
      jwt: true,
      claims: true,
      inForce: true,
      headers: true,
      tenants: framework === "express",
    }),
  ),
  node("24.0.3", "nothing", "24-raw", { payload: true, information: true, jwt: true, claims: true, inForce: true }),
  python("flask"),
  python("fastapi", { tenants: true }),
  python("django"),
];

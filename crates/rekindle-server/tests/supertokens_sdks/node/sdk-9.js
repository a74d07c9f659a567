// supertokens-node 9.3.1.

"use strict";

const SuperTokens = require("supertokens-node-9");
const express = require("supertokens-node-9/framework/express");
const koa = require("supertokens-node-9/framework/koa");
const JWT = require("supertokens-node-9/recipe/jwt");
const Session = require("supertokens-node-9/recipe/session");

const { appInfo } = require("./app-info");

module.exports = {
  init: ({ cores, apiKey, antiCsrf, framework }) =>
    SuperTokens.init({
      framework,
      supertokens: { connectionURI: cores.join(";"), apiKey },
      appInfo,
      telemetry: false,
      recipeList: [Session.init({ antiCsrf: antiCsrf ? "VIA_TOKEN" : "NONE" }), JWT.init()],
    }),
  express: { before: () => [express.middleware()], after: () => [express.errorHandler()] },
  koa: () => koa.middleware(),
  create: (req, res, ...session) => Session.createNewSession(res, ...session),
  session: (req, res) => Session.getSession(req, res),
  describe: (session) => ({ userId: session.getUserId(), payload: session.getAccessTokenPayload() }),
  end: (session) => session.revokeSession(),
  data: (session) => session.getSessionData(),
  setData: (session, data) => session.updateSessionData(data),
  setPayload: (session, payload) => session.updateAccessTokenPayload(payload),
  sessionsOf: (userId) => Session.getAllSessionHandlesForUser(userId),
  information: (handle) => Session.getSessionInformation(handle),
  revoke: (handle) => Session.revokeSession(handle),
  revokeAll: (userId) => Session.revokeAllSessionsForUser(userId),
  jwt: async (payload) => (await JWT.createJWT(payload, 60)).jwt,
  keys: () => JWT.getJWKS(),
};

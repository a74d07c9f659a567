// supertokens-node 2.5.0.

"use strict";

const SuperTokens = require("supertokens-node-2");

let refreshMiddleware;

module.exports = {
  init: ({ cores, apiKey }) => {
    refreshMiddleware = SuperTokens.init({ hosts: cores.join(";"), apiKey });
  },
  express: { before: () => [refreshMiddleware], after: () => [SuperTokens.errorHandler()] },
  create: (req, res, ...session) => SuperTokens.createNewSession(res, ...session),
  session: (req, res) => SuperTokens.getSession(req, res, req.method !== "GET"),
  describe: (session) => ({ userId: session.getUserId(), payload: session.getJWTPayload() }),
  end: (session) => session.revokeSession(),
  data: (session) => session.getSessionData(),
  setData: (session, data) => session.updateSessionData(data),
  setPayload: (session, payload) => session.updateJWTPayload(payload),
  sessionsOf: (userId) => SuperTokens.getAllSessionHandlesForUser(userId),
  revoke: (handle) => SuperTokens.revokeSession(handle),
  revokeAll: (userId) => SuperTokens.revokeAllSessionsForUser(userId),
};

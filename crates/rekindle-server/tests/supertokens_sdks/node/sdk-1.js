// supertokens-node 1.0.0, for Express: no middleware, errors are the app's to answer.

"use strict";

const SuperTokens = require("supertokens-node-1");

const { host, refusal } = require("./errors-1");

module.exports = {
  init: ({ cores }) => SuperTokens.init(cores.map(host)),
  express: {
    before: () => [],
    after: () => [
      async (error, req, res, next) => {
        if (!SuperTokens.Error.isErrorFromAuth(error)) return next(error);
        const { status, message } = await refusal(SuperTokens, error);
        res.status(status).json({ message });
      },
    ],
  },
  refresh: (req, res) => SuperTokens.refreshSession(req, res),
  create: (req, res, ...session) => SuperTokens.createNewSession(res, ...session),
  end: (session) => session.revokeSession(),
  session: (req, res) => SuperTokens.getSession(req, res, req.method !== "GET"),
  describe: (session) => ({ userId: session.getUserId(), payload: session.getJWTPayload() }),
  data: (session) => session.getSessionData(),
  setData: (session, data) => session.updateSessionData(data),
  sessionsOf: (userId) => SuperTokens.getAllSessionHandlesForUser(userId),
  revoke: (handle) => SuperTokens.revokeSessionUsingSessionHandle(handle),
  revokeAll: (userId) => SuperTokens.revokeAllSessionsForUser(userId),
};

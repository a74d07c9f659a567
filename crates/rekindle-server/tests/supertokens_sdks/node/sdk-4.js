// supertokens-node 4.4.1, the last major version that knew only Express.

"use strict";

const SuperTokens = require("supertokens-node-4");
const Session = require("supertokens-node-4/recipe/session");

const { appInfo } = require("./app-info");

module.exports = {
  init: ({ cores, apiKey, antiCsrf }) =>
    SuperTokens.init({
      supertokens: { connectionURI: cores.join(";"), apiKey },
      appInfo,
      telemetry: false,
      recipeList: [Session.init({ enableAntiCsrf: antiCsrf })],
    }),
  express: { before: () => [SuperTokens.middleware()], after: () => [SuperTokens.errorHandler()] },
  create: (req, res, ...session) => Session.createNewSession(res, ...session),
  session: (req, res) => Session.getSession(req, res),
  describe: (session) => ({ userId: session.getUserId(), payload: session.getJWTPayload() }),
  end: (session) => session.revokeSession(),
  data: (session) => session.getSessionData(),
  setData: (session, data) => session.updateSessionData(data),
  setPayload: (session, payload) => session.updateJWTPayload(payload),
  sessionsOf: (userId) => Session.getAllSessionHandlesForUser(userId),
  revoke: (handle) => Session.revokeSession(handle),
  revokeAll: (userId) => Session.revokeAllSessionsForUser(userId),
};

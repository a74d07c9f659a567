// supertokens-node 1.0.0 without Express: its functions of tokens.

"use strict";

const SuperTokens = require("supertokens-node-1/session");

const { cookie, dropTokens, keepTokens } = require("./cookies");
const { host, refusal } = require("./errors-1");

const keep = (res, { accessToken, refreshToken, idRefreshToken, antiCsrfToken }) =>
  keepTokens(res, {
    accessToken: accessToken?.token,
    refreshToken: refreshToken?.token,
    idRefreshToken: idRefreshToken?.token,
    antiCsrfToken,
  });

module.exports = {
  init: ({ cores }) => SuperTokens.init(cores.map(host)),
  refusal: (error) => refusal(SuperTokens, error),
  create: async (req, res, ...session) => {
    const created = await SuperTokens.createNewSession(...session);
    keep(res, created);
    return created.session;
  },
  refresh: async (req, res) => keep(res, await SuperTokens.refreshSession(cookie(req, "sRefreshToken"))),
  session: async (req, res) => {
    const access = cookie(req, "sAccessToken");
    const id = cookie(req, "sIdRefreshToken");
    const found = await SuperTokens.getSession(access, req.headers["anti-csrf"], req.method !== "GET", id);
    keep(res, found);
    return found.session;
  },
  describe: ({ userId, userDataInJWT }) => ({ userId, payload: userDataInJWT }),
  end: async ({ handle }, res) => {
    await SuperTokens.revokeSessionUsingSessionHandle(handle);
    dropTokens(res);
  },
  data: ({ handle }) => SuperTokens.getSessionData(handle),
  setData: ({ handle }, data) => SuperTokens.updateSessionData(handle, data),
  sessionsOf: (userId) => SuperTokens.getAllSessionHandlesForUser(userId),
  revoke: (handle) => SuperTokens.revokeSessionUsingSessionHandle(handle),
  revokeAll: (userId) => SuperTokens.revokeAllSessionsForUser(userId),
};

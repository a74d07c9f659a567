// supertokens-node 24.0.3 without requests and responses: its functions of tokens.

"use strict";

const Session = require("supertokens-node-24/recipe/session");
const SuperTokens = require("supertokens-node-24");

const { cookie, dropTokens, keepTokens } = require("./cookies");
const sdk = require("./sdk-24");

const keep = (res, session) => {
  keepTokens(res, session.getAllSessionTokensDangerously());
  return session;
};

const find = async (req, res, options) => {
  const access = cookie(req, "sAccessToken");
  const checked = { antiCsrfCheck: req.method !== "GET", ...options };
  const session = await Session.getSessionWithoutRequestResponse(access, req.headers["anti-csrf"], checked);
  if (session.getAllSessionTokensDangerously().accessAndFrontTokenUpdated) keep(res, session);
  return session;
};

const messages = {
  [Session.Error.UNAUTHORISED]: "unauthorised",
  [Session.Error.TRY_REFRESH_TOKEN]: "try refresh token",
  [Session.Error.TOKEN_THEFT_DETECTED]: "token theft detected",
};

module.exports = {
  ...sdk,
  create: async (req, res, userId, ...more) =>
    keep(
      res,
      await Session.createNewSessionWithoutRequestResponse("public", SuperTokens.convertToRecipeUserId(userId), ...more),
    ),
  refresh: async (req, res) => {
    const refresh = cookie(req, "sRefreshToken");
    keep(res, await Session.refreshSessionWithoutRequestResponse(refresh, false, req.headers["anti-csrf"]));
  },
  end: async (session, res) => {
    await session.revokeSession();
    dropTokens(res);
  },
  session: find,
  setPayload: async (session, payload, res) => {
    await session.mergeIntoAccessTokenPayload(payload);
    keep(res, session);
  },
  join: async (session, res) => {
    await sdk.join(session);
    keep(res, session);
  },
  sessionInForce: (req, res) => find(req, res, { checkDatabase: true }),
  memberSession: (req, res) =>
    find(req, res, { overrideGlobalClaimValidators: (all) => [...all, sdk.member.validators.isTrue()] }),
  refusal: async (error) => {
    if (error.type === Session.Error.INVALID_CLAIMS) return { status: 403, message: "invalid claim" };
    if (error.type === Session.Error.TOKEN_THEFT_DETECTED) await Session.revokeSession(error.payload.sessionHandle);
    const message = messages[error.type];
    return message ? { status: 401, message } : { status: 500, message: String(error) };
  },
};

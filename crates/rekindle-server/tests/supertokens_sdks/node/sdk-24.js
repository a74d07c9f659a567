// supertokens-node 24.0.3.

"use strict";

const SuperTokens = require("supertokens-node-24");
const express = require("supertokens-node-24/framework/express");
const koa = require("supertokens-node-24/framework/koa");
const JWT = require("supertokens-node-24/recipe/jwt");
const Session = require("supertokens-node-24/recipe/session");
const { BooleanClaim } = require("supertokens-node-24/recipe/session/claims");

const { appInfo } = require("./app-info");

const member = new BooleanClaim({ key: "member", fetchValue: () => false });

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
  create: (req, res, userId, payload, data, tenant = "public") =>
    Session.createNewSession(req, res, tenant, SuperTokens.convertToRecipeUserId(userId), payload, data),
  session: (req, res) => Session.getSession(req, res),
  sessionInForce: (req, res) => Session.getSession(req, res, { checkDatabase: true }),
  describe: (session) => ({ userId: session.getUserId(), payload: session.getAccessTokenPayload() }),
  end: (session) => session.revokeSession(),
  data: (session) => session.getSessionDataFromDatabase(),
  setData: (session, data) => session.updateSessionDataInDatabase(data),
  setPayload: (session, payload) => session.mergeIntoAccessTokenPayload(payload),
  sessionsOf: (userId) => Session.getAllSessionHandlesForUser(userId),
  information: async (handle) => {
    const { recipeUserId, ...found } = await Session.getSessionInformation(handle);
    return { ...found, recipeUserId: recipeUserId.getAsString() };
  },
  revoke: (handle) => Session.revokeSession(handle),
  revokeAll: (userId) => Session.revokeAllSessionsForUser(userId),
  member,
  join: (session) => session.setClaimValue(member, true),
  memberSession: (req, res) =>
    Session.getSession(req, res, { overrideGlobalClaimValidators: (all) => [...all, member.validators.isTrue()] }),
  jwt: async (payload) => (await JWT.createJWT(payload, 60)).jwt,
  keys: () => JWT.getJWKS(),
};

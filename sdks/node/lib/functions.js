// `rekindle/functions`: sessions by the function names that code for earlier session libraries has, without a framework.

"use strict";

const { randomUUID } = require("node:crypto");

const { Error, TYPES, asked, failed, general, current, init } = require("./opened");

/** A token with what its caller has to know for the cookie, by both of its names. */
const cookieOf = (token, expires, created, path) => {
  const { domain, secure } = current().cookie;
  const times = { expiry: expires.getTime(), expires: expires.getTime(), createdTime: created };
  return { token, value: token, ...times, cookiePath: path, cookieSecure: secure, domain };
};

const sessionOf = (handle, userId, claims) => ({ handle, userId, userDataInJWT: claims, jwtPayload: claims });

/** A session's tokens, by the names of a start and by those of a refresh. */
const given = ({ session, accessToken, accessTokenExpiresAt, refreshToken, refreshTokenExpiresAt }) => {
  const { web, refreshPath } = current();
  const created = Date.now();
  const access = cookieOf(accessToken, accessTokenExpiresAt, created, "/");
  const refresh = cookieOf(refreshToken, refreshTokenExpiresAt, created, refreshPath);
  const id = cookieOf(randomUUID(), refreshTokenExpiresAt, created, "/");
  const antiCsrfToken = web.csrfToken(session.id, session.generation);
  return {
    session: sessionOf(session.id, session.userId, session.claims),
    accessToken: access,
    refreshToken: refresh,
    idRefreshToken: id,
    antiCsrfToken,
    newAccessToken: access,
    newRefreshToken: refresh,
    newIdRefreshToken: id,
    newAntiCsrfToken: antiCsrfToken,
  };
};

/** Starts a session. GENERAL_ERROR. */
const createNewSession = (userId, jwtPayload = {}, sessionData = {}) =>
  asked(async ({ rekindle }) => {
    if (typeof userId !== "string" && typeof userId !== "number") throw general(`a user id is a string or a number, not ${typeof userId}`);
    return given(await rekindle.start({ userId: String(userId), claims: jwtPayload, data: sessionData }));
  });

/**
 * The session of an access token. `antiCsrfToken` null: not checked; or `doAntiCsrfCheck` says whether it is. GENERAL_ERROR,
 * UNAUTHORISED, TRY_REFRESH_TOKEN.
 */
const getSession = (accessToken, antiCsrfToken, doAntiCsrfCheck, ...idRefreshToken) =>
  asked(async ({ rekindle, web, hasCsrf }) => {
    if (doAntiCsrfCheck === undefined && antiCsrfToken === undefined) throw general("give an anti-CSRF token, or null not to check it");
    if (idRefreshToken.length > 0 && idRefreshToken[0] === undefined) throw failed(TYPES.UNAUTHORISED, new globalThis.Error("there is no session"));
    const { sessionId, generation, userId, claims } = await rekindle.verify(accessToken);
    const check = hasCsrf && (doAntiCsrfCheck ?? antiCsrfToken !== null);
    if (check && !web.csrfMatches(antiCsrfToken, sessionId, generation)) {
      throw failed(TYPES.TRY_REFRESH_TOKEN, new globalThis.Error("the anti-CSRF token is not the one of this access token"));
    }
    return { session: sessionOf(sessionId, userId, claims), accessToken: undefined, newAccessToken: undefined };
  }, TYPES.TRY_REFRESH_TOKEN);

/** New tokens for a refresh token. GENERAL_ERROR, UNAUTHORISED, TOKEN_THEFT_DETECTED: the session is over, and the error has handle and user. */
const refreshSession = (refreshToken) => asked(async ({ rekindle }) => given(await rekindle.refresh({ refreshToken })));

/** How many sessions of the user were ended. GENERAL_ERROR. */
const revokeAllSessionsForUser = (userId) => asked(({ rekindle }) => rekindle.revokeUser(String(userId)));

/** The handles of a user's active sessions. GENERAL_ERROR. */
const getAllSessionHandlesForUser = (userId) =>
  asked(async ({ rekindle }) => {
    const handles = [];
    let after;
    do {
      const { sessions, next } = await rekindle.list({ userId: String(userId), state: "active", limit: 200, after });
      handles.push(...sessions.map(({ id }) => id));
      after = next ?? undefined;
    } while (after);
    return handles;
  });

/** Whether a session was there and active, and is over now. GENERAL_ERROR. */
const revokeSession = (handle) =>
  asked(async ({ rekindle }) => {
    const { state } = await rekindle.read(handle).catch((error) => {
      if (error.code === "session_not_found" || error.code === "invalid_request") return { state: "unknown" };
      throw error;
    });
    if (state === "active") await rekindle.revoke(handle);
    return state === "active";
  });

/** The application's data of an active session. GENERAL_ERROR, UNAUTHORISED. */
const getSessionInfo = (handle) =>
  asked(async ({ rekindle }) => {
    const { state, data } = await rekindle.read(handle);
    if (state !== "active") throw failed(TYPES.UNAUTHORISED, new globalThis.Error("the session is over"));
    return data;
  });

/** Puts other data in the place of what was there. GENERAL_ERROR, UNAUTHORISED. */
const updateSessionInfo = (handle, info) =>
  asked(async ({ rekindle }) => {
    // A patch leaves what it does not name: what is to go is named as null. Whoever writes in between is read again.
    for (;;) {
      const { data, version } = await rekindle.read(handle);
      const gone = Object.fromEntries(Object.keys(data).map((name) => [name, null]));
      try {
        await rekindle.patch(handle, { data: { ...gone, ...info }, ifVersion: version });
        return;
      } catch (error) {
        if (error.code !== "version_mismatch") throw error;
      }
    }
  });

module.exports = {
  Error,
  init,
  createNewSession,
  getSession,
  refreshSession,
  revokeAllSessionsForUser,
  getAllSessionHandlesForUser,
  revokeSession,
  revokeSessionUsingSessionHandle: revokeSession,
  getSessionInfo,
  getSessionData: getSessionInfo,
  updateSessionInfo,
  updateSessionData: updateSessionInfo,
};

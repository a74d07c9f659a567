// `rekindle/express`: the functions of `rekindle/functions` with requests and responses of Express; cookies are set and cleared by them.

"use strict";

const functions = require("./functions");
const { current, told } = require("./opened");
const { append } = require("./web");

const { UNAUTHORISED } = functions.Error;

/** Headers that a browser's script may send, and read, from another origin. */
const HEADERS = "rekindle-proof, rekindle-request, rekindle-mode, anti-csrf";

/** The session of a request. */
class Session {
  #handle;
  #userId;
  #claims;
  #res;

  constructor(handle, userId, claims, res) {
    this.#handle = handle;
    this.#userId = userId;
    this.#claims = claims;
    this.#res = res;
  }

  getHandle() {
    return this.#handle;
  }

  getUserId() {
    return this.#userId;
  }

  getJWTPayload() {
    return this.#claims;
  }

  /** Ends it, and takes the cookies back. GENERAL_ERROR. */
  async revokeSession() {
    await functions.revokeSession(this.#handle);
    clear(this.#res);
  }

  /** GENERAL_ERROR, UNAUTHORISED, with which the cookies are taken back. */
  getSessionInfo() {
    return this.#live(functions.getSessionInfo(this.#handle));
  }

  /** As `getSessionInfo`. */
  updateSessionInfo(info) {
    return this.#live(functions.updateSessionInfo(this.#handle, info));
  }

  getSessionData() {
    return this.getSessionInfo();
  }

  updateSessionData(data) {
    return this.updateSessionInfo(data);
  }

  #live(promise) {
    return promise.catch((error) => {
      if (error.errType === UNAUTHORISED) clear(this.#res);
      throw error;
    });
  }
}

const give = (res, headers) => {
  for (const [name, value] of headers) append(res, name, value);
};

const clear = (res) => give(res, current().web.visitOf(res.req).cleared());

/** Starts a session, and sets its cookies. GENERAL_ERROR. */
const createNewSession = async (res, userId, jwtPayload = {}, sessionData = {}) => {
  const { web } = current();
  try {
    const { session } = await web.signIn(res.req, res, { userId: String(userId), claims: jwtPayload, data: sessionData });
    return new Session(session.id, session.userId, session.claims, res);
  } catch (error) {
    throw told(error);
  }
};

/** The session of a request. GENERAL_ERROR, UNAUTHORISED, TRY_REFRESH_TOKEN. */
const getSession = async (req, res) => {
  const { web } = current();
  try {
    const session = await web.session(req);
    return new Session(session.id, session.userId, session.claims, res);
  } catch (error) {
    // A refusal takes the cookies back where that is due.
    if (error.answer) give(res, error.answer.headers.filter(([name]) => name === "set-cookie"));
    throw told(error);
  }
};

/** Rotates the refresh token of a request, and sets the new cookies. GENERAL_ERROR, UNAUTHORISED, TOKEN_THEFT_DETECTED: the cookies are taken back. */
const refreshSession = async (req, res) => {
  const { rekindle, web } = current();
  const { status, headers, body } = await web.visitOf(req).refresh().catch((error) => {
    throw told(error);
  });
  give(res, headers.filter(([name]) => name !== "content-type" && name !== "www-authenticate"));
  const said = JSON.parse(body);
  if (status !== 200) {
    // A browser is not told whose session it was; the application is.
    const userId = said.code === "token_theft_detected" ? (await rekindle.read(said.session_id)).userId : undefined;
    throw told({ ...said, message: said.detail, sessionId: said.session_id, userId });
  }
  const { claims } = await rekindle.read(said.session_id);
  return new Session(said.session_id, said.user_id, claims, res);
};

/** For the answer to a preflight: another origin's script may send and read the session's headers. */
const setRelevantHeadersForOptionsAPI = (res) => {
  res.setHeader("access-control-allow-headers", [res.getHeader("access-control-allow-headers"), HEADERS].filter(Boolean).join(", "));
  res.setHeader("access-control-allow-credentials", "true");
};

module.exports = { ...functions, Session, createNewSession, getSession, refreshSession, setRelevantHeadersForOptionsAPI };

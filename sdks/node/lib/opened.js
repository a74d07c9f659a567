// What `rekindle/functions` and `rekindle/express` have in common: what `init` opened, and their errors.

"use strict";

const { RekindleError } = require("./errors");
const { onLog } = require("./native");
const { Rekindle } = require("./rekindle");

let opened;

/** The kinds of errors. */
const TYPES = {
  GENERAL_ERROR: 1000,
  UNAUTHORISED: 2000,
  TRY_REFRESH_TOKEN: 3000,
  TOKEN_THEFT_DETECTED: 4000,
  UNAUTHORISED_AND_TOKEN_THEFT_DETECTED: 4000,
};

/** Tells our errors from others, in whichever copy of this package they were made. */
const MAGIC = "rekindle-session-error";

const Error = {
  ...TYPES,
  isErrorFromAuth: (error) => error?.errMagic === MAGIC,
};

const failed = (errType, err) => ({ errMagic: MAGIC, errType, err });
const general = (message) => failed(TYPES.GENERAL_ERROR, new globalThis.Error(message));

/** Codes that mean that a user has to sign in. */
const OVER = new Set(["session_revoked", "session_expired", "session_not_found", "token_scope_mismatch", "conflict"]);

/** An error of a handle as one of ours; `malformed` says what a damaged token means. */
const told = (error, malformed = TYPES.UNAUTHORISED) => {
  if (!(error instanceof RekindleError) && error?.code === undefined) return failed(TYPES.GENERAL_ERROR, error);
  const { code, sessionId, userId } = error;
  if (code === "token_theft_detected") return failed(TYPES.TOKEN_THEFT_DETECTED, { sessionHandle: sessionId, userId });
  if (code === "access_token_expired") return failed(TYPES.TRY_REFRESH_TOKEN, error);
  if (code === "token_malformed") return failed(malformed, error);
  return failed(OVER.has(code) ? TYPES.UNAUTHORISED : TYPES.GENERAL_ERROR, error);
};

/** The work of a function, with its errors as ours. */
const asked = async (work, malformed) => {
  try {
    return await work(current());
  } catch (error) {
    throw Error.isErrorFromAuth(error) ? error : told(error, malformed);
  }
};

/**
 * Opens sessions, once: what `Rekindle.embedded` takes, or with `server` what `Rekindle.remote` takes; `web`, what `Rekindle.web` takes, with a `csrfKey`
 * for tokens against CSRF; `cookie` with `domain` and `secure`, of which callers are told with each token; and `logging` with `info` and `error`,
 * which are called with each line that is logged. A second call does nothing.
 */
const init = async ({ cookie = {}, web = {}, logging = {}, ...options } = {}) => {
  if (opened) return;
  try {
    const rekindle = await (options.server || options.servers ? Rekindle.remote(options) : Rekindle.embedded(options));
    const { domain, secure = true } = cookie;
    const refreshPath = `${web.base ?? "/auth"}/session/refresh`;
    opened = { rekindle, web: rekindle.web(web), hasCsrf: web.csrfKey !== undefined, cookie: { domain, secure }, refreshPath };
    // Not before: an `init` that failed is called again.
    if (logging.info || logging.error) {
      onLog((level, message, fields) => logging[level === "error" ? "error" : "info"]?.({ level, message, fields }));
    }
  } catch (error) {
    throw failed(TYPES.GENERAL_ERROR, error);
  }
};

/** What `init` opened. */
const current = () => {
  if (!opened) throw general("call `init`, and wait for it, before any other function");
  return opened;
};

module.exports = { Error, TYPES, asked, current, failed, general, init, told };

// Errors, with the codes of the API.

"use strict";

const { camel } = require("./shapes");

/** The codes that mean that a session is over. */
const TERMINAL = new Set(["session_expired", "session_revoked", "token_theft_detected"]);
/** The codes after which the same may succeed later. */
const TRANSIENT = new Set(["unavailable", "rate_limited"]);

/** Why something was not done. It never holds a token. */
class RekindleError extends Error {
  constructor({ code, detail, status, ...about }) {
    super(detail);
    this.name = "RekindleError";
    this.code = code;
    this.status = status;
    Object.assign(this, camel(about));
  }

  /** Whether the session is over: only then does a client forget what belongs to it. */
  get isTerminal() {
    return TERMINAL.has(this.code);
  }

  /** Whether the same may succeed later, because nothing was decided. */
  get isTransient() {
    return TRANSIENT.has(this.code);
  }
}

/** An error of the native half, as one of ours. */
const told = (error) => {
  if (!error?.message?.startsWith("{")) return error;
  return new RekindleError(JSON.parse(error.message));
};

/** What the native half answers, later. */
const asked = (promise) =>
  promise.catch((error) => {
    throw told(error);
  });

module.exports = { RekindleError, asked, told };

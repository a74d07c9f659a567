/** Sessions by the function names that code for earlier session libraries has, without a framework. */

import type { EmbeddedOptions, Json, LogLine, RemoteOptions, WebSettings } from "./index.js";

/** What every function rejects with; it is no `Error`. */
export interface SessionError {
  errType: number;
  /** What was wrong; of a theft, whose session it was. */
  err: Error | { sessionHandle: string; userId: string };
}

export const Error: {
  /** Something is wrong with the application, the network or the store: nothing is said of the session. */
  readonly GENERAL_ERROR: 1000;
  /** The session is over, or there is none: sign in. */
  readonly UNAUTHORISED: 2000;
  /** The access token has expired: refresh. */
  readonly TRY_REFRESH_TOKEN: 3000;
  /** Two parties used the session, which is over; `err` has its handle and its user. */
  readonly TOKEN_THEFT_DETECTED: 4000;
  readonly UNAUTHORISED_AND_TOKEN_THEFT_DETECTED: 4000;
  isErrorFromAuth(error: unknown): error is SessionError;
};

export interface Cookie {
  token: string;
  /** Milliseconds since 1970. */
  expiry: number;
  createdTime: number;
  cookiePath: string;
  cookieSecure: boolean;
  domain: string | undefined;
  /** The same as `token` and `expiry`. */
  value: string;
  expires: number;
}

export interface SessionOf {
  handle: string;
  userId: string;
  userDataInJWT: Json;
  /** The same. */
  jwtPayload: Json;
}

/** The `new…` names are the same again, as earlier code calls them after a refresh. */
export interface Given {
  session: SessionOf;
  accessToken: Cookie;
  refreshToken: Cookie;
  idRefreshToken: Cookie;
  antiCsrfToken: string | undefined;
  newAccessToken: Cookie;
  newRefreshToken: Cookie;
  newIdRefreshToken: Cookie;
  newAntiCsrfToken: string | undefined;
}

export type InitOptions = (EmbeddedOptions | RemoteOptions) & {
  /** With a `csrfKey`, sessions have tokens against CSRF. */
  web?: WebSettings;
  /** Of which callers are told with each token. */
  cookie?: { domain?: string; secure?: boolean };
  /** Called with each line that is logged: `error` with errors, `info` with all others. */
  logging?: { info?: (line: LogLine) => void; error?: (line: LogLine) => void };
};

/** Opens sessions, once; a second call does nothing. GENERAL_ERROR. */
export function init(options?: InitOptions): Promise<void>;
/** GENERAL_ERROR. */
export function createNewSession(userId: string | number, jwtPayload?: Json, sessionData?: Json): Promise<Given>;
/** `antiCsrfToken` null: not checked; or `doAntiCsrfCheck` says whether it is. GENERAL_ERROR, UNAUTHORISED, TRY_REFRESH_TOKEN. */
export function getSession(
  accessToken: string,
  antiCsrfToken: string | null | undefined,
  doAntiCsrfCheck?: boolean,
  idRefreshToken?: string,
): Promise<{ session: SessionOf; accessToken: undefined; newAccessToken: undefined }>;
/** GENERAL_ERROR, UNAUTHORISED, TOKEN_THEFT_DETECTED. */
export function refreshSession(refreshToken: string): Promise<Given>;
/** How many were ended. GENERAL_ERROR. */
export function revokeAllSessionsForUser(userId: string | number): Promise<number>;
/** GENERAL_ERROR. */
export function getAllSessionHandlesForUser(userId: string | number): Promise<string[]>;
/** Whether it was active, and is over now. GENERAL_ERROR. */
export function revokeSession(handle: string): Promise<boolean>;
export { revokeSession as revokeSessionUsingSessionHandle };
/** GENERAL_ERROR, UNAUTHORISED. */
export function getSessionInfo(handle: string): Promise<Json>;
export { getSessionInfo as getSessionData };
/** Puts other data in the place of what was there. GENERAL_ERROR, UNAUTHORISED. */
export function updateSessionInfo(handle: string, info: Json): Promise<void>;
export { updateSessionInfo as updateSessionData };

/** The functions of `rekindle/functions` with requests and responses of Express: cookies are set and taken back by them. */

import type { IncomingMessage, ServerResponse } from "node:http";

import type { Json } from "./index.js";

export {
  Error,
  getAllSessionHandlesForUser,
  getSessionData,
  getSessionInfo,
  init,
  revokeAllSessionsForUser,
  revokeSession,
  revokeSessionUsingSessionHandle,
  updateSessionData,
  updateSessionInfo,
} from "./functions.js";

/** The session of a request. */
export class Session {
  private constructor();
  getHandle(): string;
  getUserId(): string;
  getJWTPayload(): Json;
  /** Ends it, and takes the cookies back. GENERAL_ERROR. */
  revokeSession(): Promise<void>;
  /** GENERAL_ERROR, UNAUTHORISED: the cookies are taken back. */
  getSessionInfo(): Promise<Json>;
  getSessionData(): Promise<Json>;
  /** As `getSessionInfo`. */
  updateSessionInfo(info: Json): Promise<void>;
  updateSessionData(data: Json): Promise<void>;
}

/** Starts a session, and sets its cookies. GENERAL_ERROR. */
export function createNewSession(res: ServerResponse, userId: string | number, jwtPayload?: Json, sessionData?: Json): Promise<Session>;
/** Whether a token against CSRF is asked for is said at `init`. GENERAL_ERROR, UNAUTHORISED, TRY_REFRESH_TOKEN. */
export function getSession(req: IncomingMessage, res: ServerResponse, enableCsrfProtection?: boolean): Promise<Session>;
/** Only for a POST that does nothing else. GENERAL_ERROR, UNAUTHORISED, TOKEN_THEFT_DETECTED: the cookies are taken back. */
export function refreshSession(req: IncomingMessage, res: ServerResponse): Promise<Session>;
/** For the answer to a preflight. */
export function setRelevantHeadersForOptionsAPI(res: ServerResponse): void;

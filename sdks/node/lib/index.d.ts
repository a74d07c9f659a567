/** Sessions in a Node.js application: the engine in this process, or on Rekindle servers. */

import type { IncomingMessage, ServerResponse } from "node:http";

/** JSON that belongs to the application. */
export type Json = Record<string, unknown>;

/** Where sessions belong; `default`, `dev` and `default` by default. */
export interface Place {
  product: string;
  env: string;
  tag: string;
}

/** An engine in this process. */
export interface EmbeddedOptions extends Partial<Place> {
  /** `sqlite:` (in `dataDir`) by default, `sqlite:<path>`, `postgres://…`, `mysql://…`, `redis://…`; several processes may share it. */
  store?: string;
  /** The directory of the files that are nowhere else: `./rekindle-data` by default. */
  dataDir?: string;
  /**
   * The master secrets, as `rekindle` servers have them, or what fetches them from where keys are kept; the file `secrets` in `dataDir` by
   * default.
   */
  secrets?: string | (() => string | Promise<string>);
  /** Makes `dataDir`, and a master secret in it, where there are none. Whoever loses the secret logs everybody out. */
  development?: boolean;
  /** The `iss` of access tokens: `http://localhost` by default. */
  issuer?: string;
}

/** Servers that have the engine. */
export interface RemoteOptions extends Partial<Place> {
  /** A URL like `https://rekindle.internal:3567`; or `servers`, of which the first that answers is asked. */
  server?: string;
  servers?: string[];
  /** With the permissions `sessions`, `read` and `confirm`; or what fetches it. */
  apiKey: string | (() => string | Promise<string>);
  /** As the servers are configured; the first URL by default. */
  issuer?: string;
  /** As the servers are configured; `{product}/{env}` by default. */
  audience?: string;
  /** Milliseconds: 1000 by default. */
  connectTimeout?: number;
  /** Milliseconds for one server's answer: 5000 by default. */
  timeout?: number;
}

/** The authentication that a session rests on (OpenID Connect's `auth_time`, `acr` and `amr`). */
export interface Auth {
  time: Date;
  acr?: string;
  amr?: string[];
}

/** From where a client asks. */
export interface Client {
  ip?: string;
  userAgent?: string;
  device?: string;
}

export interface Start {
  /** Whose session. With a selector in the definition it may be left out. Neither: anonymous. */
  userId?: string;
  /** At most 64 KiB of JSON, for the application. */
  data?: Json;
  /** At most 4 KiB of JSON, for the access token; about 2 KiB with cookies. */
  claims?: Json;
  /** Now, by default. */
  auth?: Auth;
  /** The client's first commitment. `Web` takes it from the request. */
  commitment?: string;
  client?: Client;
  /** The session that this one replaces. */
  previousSessionId?: string;
  /** Shortens the absolute lifetime: seconds. */
  expiresIn?: number;
  /** The same key with the same content gives the same session, for 24 hours. */
  idempotencyKey?: string;
}

/** What a client proves at a refresh: docs/PROTOCOL.md. Base64url without padding. */
export interface Proof {
  sessionId: string;
  generation: number;
  commitment: string;
  opening?: string;
  newest?: boolean;
}

export interface Refresh {
  refreshToken: string;
  proof?: Proof;
  client?: Client;
}

/** A session's row, as it was when it was read. */
export interface SessionInfo {
  id: string;
  product: string;
  env: string;
  tag: string;
  userId: string;
  state: "active" | "ended";
  endReason: string | null;
  endedAt: Date | null;
  generation: number;
  binding: "committed" | "bearer";
  data: Json;
  claims: Json;
  /** Counts writes of `data` and `claims`. */
  version: number;
  client: Client;
  auth: Auth;
  createdAt: Date;
  lastRefreshedAt: Date;
  idleExpiresAt: Date;
  expiresAt: Date;
  previousSessionId: string | null;
}

export interface Tokens {
  session: SessionInfo;
  accessToken: string;
  accessTokenExpiresAt: Date;
  refreshToken: string;
  refreshTokenExpiresAt: Date;
  /** What the refresh token is committed to; null for a bearer generation. */
  commitment: string | null;
  warnings: { field: string; detail: string }[];
}

/** What an access token says. */
export interface Verified {
  readonly sessionId: string;
  readonly userId: string;
  readonly product: string;
  readonly env: string;
  readonly tag: string;
  readonly generation: number;
  readonly binding: "committed" | "bearer";
  readonly tokenId: string;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  readonly auth: Auth;
  readonly claims: Json;
}

/**
 * What to do about an access token while it is not known which sessions have ended: believe it for the rest of its minutes; refuse with
 * `unavailable`; or ask the session itself, each time.
 */
export type Trust = "fail-open" | "fail-closed" | "online";

/** The codes of docs/API.md. */
export type Code =
  | "invalid_request"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "product_not_found"
  | "environment_not_found"
  | "definition_not_found"
  | "session_not_found"
  | "user_not_found"
  | "environment_inactive"
  | "conflict"
  | "version_mismatch"
  | "data_invalid"
  | "selector_unresolved"
  | "max_sessions_reached"
  | "idempotency_mismatch"
  | "user_banned"
  | "rate_limited"
  | "unavailable"
  | "method_not_allowed"
  | "payload_too_large"
  | "unsupported_media_type"
  | "internal"
  | "token_malformed"
  | "token_scope_mismatch"
  | "access_token_expired"
  | "session_expired"
  | "session_revoked"
  | "proof_required"
  | "token_theft_detected"
  | "superseded"
  | "csrf_failed"
  | "reauthentication_required";

/** Why something was not done. It never holds a token. */
export class RekindleError extends Error {
  readonly code: Code;
  /** The HTTP status that goes with the code. */
  readonly status: number;
  /** Terminal codes: which session; theft: whose, too. */
  readonly sessionId?: string;
  readonly userId?: string;
  /** `token_theft_detected`: how it showed. */
  readonly kind?: "forked" | "reused" | "stolen_token";
  /** `session_expired`: which clock ran out. */
  readonly which?: "idle" | "absolute";
  /** `superseded`, `proof_required`: where the session stands. */
  readonly generation?: number;
  readonly presentedGeneration?: number;
  readonly commitment?: string;
  /** `reauthentication_required`: how many seconds ago the sign-in may be. */
  readonly maxAge?: number;
  /** `invalid_request`, `data_invalid`: what is wrong with which field. */
  readonly fields?: { field: string; detail: string }[];
  /** Seconds. */
  readonly retryAfter?: number;
  /** Whether the session is over: only then does a client forget what belongs to it. */
  readonly isTerminal: boolean;
  /** Whether the same may succeed later, because nothing was decided. */
  readonly isTransient: boolean;
}

/** Sessions of one product, environment and definition. Every method rejects with a `RekindleError`; `unavailable` says nothing about any session. */
export class Rekindle {
  private constructor();
  /** The engine in this process. Rejects with an `Error` that says what cannot be opened. */
  static embedded(options?: EmbeddedOptions): Promise<Rekindle>;
  /** The engine on servers, none of which has to be up: keys and revocations are fetched in the background. */
  static remote(options: RemoteOptions): Promise<Rekindle>;
  /** The sessions of another product, environment or definition; with an engine in this process, they are made where they are not. */
  at(place: Partial<Place>): Promise<Rekindle>;
  readonly place: Place;
  /** The shapes of SDKs whose tokens are `<tag>:<token>`. */
  readonly sessions: Sessions;
  /** Makes or changes a session definition (docs/API.md); only with an engine in this process. `invalid_request`. */
  define(definition: { tag: string } & Json): Promise<void>;
  /** `user_banned`, `max_sessions_reached`, `data_invalid`, `selector_unresolved`, `environment_inactive`, `conflict`, `idempotency_mismatch`. */
  start(start?: Start): Promise<Tokens>;
  /**
   * Rotates a refresh token. Repeating it gives the same refresh token again. `superseded`, `proof_required`, `token_malformed`,
   * `token_scope_mismatch`: the session goes on. Terminal: `session_expired`, `session_revoked`, `token_theft_detected`.
   */
  refresh(refresh: Refresh): Promise<Tokens>;
  /** A refresh after the user authenticated again: access tokens of before are refused from then on. As `refresh`. */
  elevate(elevate: Refresh & { auth: Partial<Auth> }): Promise<Tokens>;
  /** Buys an access token of at most 60 seconds; nothing rotates. `superseded`, `conflict`, and the terminal codes. */
  mint(refreshToken: string, options?: { lifetime?: number }): Promise<Pick<Tokens, "session" | "accessToken" | "accessTokenExpiresAt">>;
  /** What an access token says, if it is good. `access_token_expired`, `session_revoked`, `session_expired`, `token_malformed`, `token_scope_mismatch`. */
  verify(accessToken: string, options?: { trust?: Trust }): Promise<Verified>;
  /** Reports generations that were seen in use; `verify` does so by itself. */
  confirm(seen: { sessionId: string; generation: number }[]): Promise<void>;
  /** Ends the session of a refresh or access token, also of an old or expired one. `token_malformed`, `token_scope_mismatch`. */
  signOut(token: string): Promise<void>;
  /** Ends a session. Idempotent. `session_not_found`. */
  revoke(sessionId: string): Promise<void>;
  /** Ends all of a user's sessions, or all but one; how many that were. */
  revokeUser(userId: string, options?: { except?: string }): Promise<number>;
  /** The same because its password or another credential changed. */
  credentialChanged(userId: string, options?: { keep?: string }): Promise<number>;
  /** A page of sessions, newest first; `after` is the `next` of the page before. `invalid_request` for a limit that is not 1 to 200. */
  list(list?: { userId?: string; state?: "active" | "ended"; after?: string; limit?: number }): Promise<{ sessions: SessionInfo[]; next: string | null }>;
  /** A session, active or ended. `session_not_found`. */
  read(sessionId: string): Promise<SessionInfo>;
  /** Merge patches (RFC 7396). `session_not_found`, `version_mismatch`, `data_invalid`, `conflict` (it has ended). */
  patch(sessionId: string, patch: { data?: Json; claims?: Json; ifVersion?: number }): Promise<SessionInfo>;
  /** Calls `told` for every session that ends (or is elevated) from now on, here or elsewhere, within about a second. Keeps no process alive. */
  onRevoked(told: (revocation: { sessionId: string; belowGeneration?: number }) => void): void;
  /** Whether it is not known at present what was revoked. */
  readonly isStale: boolean;
  /** Removes what is over from the store; how many sessions that were. Only with an engine in this process, which also does so by itself. */
  sweep(): Promise<number>;
  /** The sessions of requests. Throws `invalid_request`. */
  web(settings?: WebSettings): Web;
}

/** What a call names is as the handle says where it is left out. Tokens may come with or without their tag. */
type Named<T> = T & Partial<Place>;

/** `token` and `refreshToken` are `<tag>:<token>`. */
export interface Started {
  token: string;
  refreshToken: string;
  sessionId: string;
  expiresAt: Date;
  refreshExpiresAt: Date;
}

export interface Sessions {
  /** `cache` is an idempotency key. Without `identifier`, the definition's selector says whose session it is. */
  start(start: Named<{ data: Json; identifier?: string; cache?: string; expiresIn?: number; claims?: Json }>): Promise<Started>;
  refresh(refresh: Named<{ refreshToken: string; proof?: Proof }>): Promise<Started>;
  /** Rejects only where nothing could be decided. */
  verify(verify: Named<{ token: string }>): Promise<
    { valid: true; sessionId: string; expiresAt: Date; data: Json } | { valid: false; reason: Code }
  >;
  /** The data of a token's session; rejects for a token that is not good. */
  decrypt(decrypt: Named<{ token: string }>): Promise<Json>;
  revoke(revoke: Named<{ sessionId?: string; identifier?: string }>): Promise<void>;
  revokeAll(revoke: Named<{ identifier: string; excludeCurrentSession?: string }>): Promise<{ revokedCount: number }>;
  listActive(list: Named<{ identifier?: string; limit?: number; after?: string }>): Promise<{
    sessions: { sessionId: string; startAt: Date; endAt: Date; active: boolean }[];
    next: string | null;
  }>;
}

/** What an application decides once about its sessions on the web. The defaults are safe. */
export interface WebSettings {
  /** Under which path the routes are: `/auth`. */
  base?: string;
  /** `ssr`: every request carries the refresh cookie, so that pages can be rendered; `spa`: only the routes under `base` get it. */
  cookies?: "ssr" | "spa";
  sameSite?: "lax" | "strict" | "none";
  /** Goes before the cookies' names. */
  prefix?: string;
  /** For `http://localhost`: there, and only there, cookies go without `Secure`. */
  development?: boolean;
  /** Other origins whose scripts may use the session. */
  origins?: string[];
  /** The path of the page on which a user signs in: `/login`. */
  signIn?: string;
  /** How many seconds ago a user may have signed in to end other sessions: 900. */
  freshFor?: number;
  /** Whether the end of a session is answered with the status 440. */
  endedAs440?: boolean;
  /** At least 32 bytes, the same in every process: unsafe requests need the header `anti-csrf`, too. */
  csrfKey?: Uint8Array;
  trust?: Trust;
}

export interface Need {
  /** Instead of what the settings say. */
  trust?: Trust;
  /** For pages that are rendered on the server: an expired access token does not matter. Only for requests that read. */
  mint?: boolean;
}

/** A request without a session that needs one; `answer` says so to its client. */
export interface Refusal extends Error {
  readonly code: Code;
  readonly status: number;
  /** Whether there is just no session, or its token has expired. */
  readonly isAbsence: boolean;
  readonly answer: { status: number; headers: [string, string][]; body: string };
}

/** The session of a request. */
export interface Session {
  readonly id: string;
  readonly userId: string;
  readonly claims: Json;
  readonly says: Verified;
  read(): Promise<SessionInfo>;
  /** `data_invalid`, too, if the claims would not fit into the cookie. */
  patch(patch: { data?: Json; claims?: Json; ifVersion?: number }): Promise<SessionInfo>;
  /** Ends it, and takes the cookies back. `res` only with `node:http` and Express. */
  signOut(res?: ServerResponse): Promise<void>;
  /** Notes that the user has authenticated again, and gives new tokens to the client. */
  elevate(res: ServerResponse | undefined, auth: Partial<Auth>): Promise<Tokens>;
  /** Rejects with `reauthentication_required` if the user signed in too long ago. */
  requireFreshSignIn(): Promise<void>;
}

/** One request. Its methods reject with a `Refusal` or a `RekindleError`, which the middleware answers. */
export interface Visit {
  session(need?: Need): Promise<Session>;
  /** Undefined where there is no session, or its token has expired. */
  sessionIfAny(need?: Need): Promise<Session | undefined>;
  /** With `remember: false`, the cookies end with the browser. `csrf_failed`, and as `Rekindle.start`. */
  signIn(start: Start, options?: { remember?: boolean }): Promise<{ tokens: Tokens; headers: [string, string][] }>;
  /** What the answer needs; the middleware adds it. */
  headers(): [string, string][];
  /** Adds it to a `Response`. */
  finish(response: Response): Response;
}

declare module "node:http" {
  interface IncomingMessage {
    /** With `Web.required`. */
    session: Session;
  }
}

type Next = (error?: unknown) => void;

/** The sessions of requests. */
export class Web {
  private constructor();
  /** Express, Connect, `node:http`: for every request, before anything that needs a session. */
  express(): (req: IncomingMessage, res: ServerResponse, next: Next) => void;
  /** Lets only requests with a session through; `req.session` has it. */
  required(need?: Need): (req: IncomingMessage, res: ServerResponse, next: Next) => void;
  /** Answers the errors of sessions; behind all routes. */
  errors(): (error: unknown, req: IncomingMessage, res: ServerResponse, next: Next) => void;
  /** Of the handshake of a WebSocket, too: another site's page is refused (`csrf_failed`). */
  session(req: IncomingMessage, need?: Need): Promise<Session>;
  sessionIfAny(req: IncomingMessage, need?: Need): Promise<Session | undefined>;
  signIn(req: IncomingMessage, res: ServerResponse, start: Start, options?: { remember?: boolean }): Promise<Tokens>;
  /** A plugin; then `request.rekindle` is the visit. */
  fastify(): (fastify: any) => Promise<void>;
  /** Middleware; then `ctx.state.rekindle` is the visit. */
  koa(): (ctx: any, next: () => Promise<unknown>) => Promise<void>;
  /** Middleware; then `c.get("rekindle")` is the visit. */
  hono(): (c: any, next: () => Promise<void>) => Promise<void>;
  /** A handler of `Request`s, like a route of Next.js. */
  handler(
    handle: (request: Request, visit: Visit) => Promise<Response> | Response,
  ): (request: Request, about?: { ip?: string }) => Promise<Response>;
  /** A visit of a `Request`, to be finished by hand. */
  visitOfRequest(request: Request, about?: { ip?: string }): Visit;
}

declare const rekindle: { Rekindle: typeof Rekindle; RekindleError: typeof RekindleError; Web: typeof Web; onLog: typeof onLog };
export default rekindle;

/** A line of the log. */
export interface LogLine {
  level: "error" | "warn" | "info";
  /** What happened. Neither it nor a field holds a token, an opening or a key. */
  message: string;
  fields: Json;
}

/** Has `told` called with each line that is logged in this process from now on: outages of a store or server, and their end. */
export function onLog(told: (line: LogLine) => void): void;

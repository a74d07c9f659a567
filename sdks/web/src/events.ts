// What a client tells the application.

/** The events, by name, and what each carries. */
export interface Events {
  /** A session began: a login, or one that replaced another. */
  created: { session: string };
  /** The session has new tokens. */
  refreshed: { session: string; generation: number };
  /** The session is over because somebody signed out here. */
  signedOut: { session: string };
  /** The session is over for another reason: the user signs in again. */
  expired: { session: string; reason: Reason };
  /** The server saw two parties use the session, and ended it; `kind` is the server's word for how it saw. */
  theft: { session: string; kind: string };
  /** A refresh got no answer. The session is as it was, and the next request tries again. */
  offline: { cause: unknown };
  /** A refresh was refused because something is wrong with the application or its configuration. The session is as it was. */
  failed: { error: RekindleError };
}

/**
 * Why a session expired: its time was over, the server ended it, or this client's storage lost what it had to prove (`proof_required`,
 * `superseded`).
 */
export type Reason = "session_expired" | "session_revoked" | "proof_required" | "superseded";

/** An event as listeners get it. `here` is false for what another tab or worker did. */
export type RekindleEvent<Type extends keyof Events = keyof Events> = {
  [Each in Type]: { readonly type: Each; readonly here: boolean } & Readonly<Events[Each]>;
}[Type];

/** An answer that no repetition mends, by the code that the server gave. */
export class RekindleError extends Error {
  override readonly name = "RekindleError";
  /** One of the codes of docs/API.md, or empty if the answer had none. */
  readonly code: string;
  /** The HTTP status. */
  readonly status: number;

  constructor(code: string, status: number, detail?: string) {
    super(detail ?? `the server answered ${status} ${code}`.trimEnd());
    this.code = code;
    this.status = status;
  }
}

// What all tabs and workers of a client remember together, and what they make of answers. Pure: `Storage` runs these functions in
// transactions.

import type { Position, Proof, Secret } from "./proof.js";

/** What is stored. Every function below takes it as its first argument, and may change it. */
export interface Memory {
  /** The newest known position of each session; the last one was told of last. */
  sessions: Known[];
  /** What is announced to logins until a session begins with it. */
  announced?: Secret;
  /** With what the last sessions began. */
  logins: Secret[];
  /** In header mode: the tokens of the session that this client is in. */
  tokens?: Tokens;
  /** Who refreshes now, where there are no Web Locks. */
  lease?: Lease;
}

/** A session, and the openings of its last generations. */
export interface Known {
  position: Position;
  secrets: Record<number, Secret>;
  /** The token against CSRF of the position's generation, where the backend asks for one. */
  csrf?: string;
}

/** The tokens of header mode. */
export interface Tokens {
  position: Position;
  access: string;
  refresh: string;
}

/** What comes with a position in an answer's headers. */
export interface Told {
  readonly tokens?: { readonly access: string; readonly refresh: string };
  readonly csrf?: string;
}

/** A lock with an end. */
export interface Lease {
  holder: string;
  /** In this device's milliseconds: only compared with the same clock. */
  until: number;
}

/** What the next refresh request is to prove. */
export interface Ask {
  readonly about: Position;
  readonly newest: boolean;
}

/** What `superseded` and `proof_required` say. */
export interface Standing {
  /** The named session, its generation and commitment. */
  readonly named: Position;
  /** The generation of the token that was presented. */
  readonly presented: number;
}

/** Of how many generations, and of how many logins and sessions, openings are kept. */
const KEPT = 8;

/** A memory without anything in it. */
export const empty = (): Memory => ({ sessions: [], logins: [] });

/** Whether `a` is of the same session as `b`, and newer. */
export const isNewer = (a: Position, b: Position): boolean => a.session === b.session && a.generation > b.generation;

/** Where the client believes the session of its token to be: there, or further on if an answer said so. */
export function believed(memory: Memory, held: Position): Position {
  const known = find(memory, held.session)?.position;
  return known && isNewer(known, held) ? known : held;
}

/** The opening that hashes to the position's commitment. */
export function openingOf(memory: Memory, { session, generation, commitment }: Position): string | undefined {
  const kept = find(memory, session)?.secrets[generation];
  const candidates = generation === 0 ? [kept, memory.announced, ...memory.logins] : [kept];
  return commitment ? candidates.find((secret) => secret?.commitment === commitment)?.opening : undefined;
}

/** The proof of a request. `drawn` becomes the opening of the next generation, unless there is one: the first writer wins. */
export function prove(memory: Memory, { about, newest }: Ask, drawn: Secret): Proof {
  const { session, generation } = about;
  const { secrets } = find(memory, session) ?? remember(memory, { position: about, secrets: {} });
  const next = (secrets[generation + 1] ??= drawn);
  const opening = openingOf(memory, about);
  return { session, generation, commitment: next.commitment, ...(opening && { opening }), ...(newest && { newest }) };
}

/** The commitment that is announced to logins. `drawn` becomes its opening if there is none. */
export function announce(memory: Memory, drawn: Secret): string {
  return (memory.announced ??= drawn).commitment;
}

/** The token against CSRF that goes with this position's tokens. */
export function csrfToken(memory: Memory, held: Position | undefined): string | undefined {
  const known = held && find(memory, held.session);
  return known?.position.generation === held?.generation ? known?.csrf : undefined;
}

/** Keeps what an answer says of a session; nothing older replaces anything newer. */
export function tell(memory: Memory, position: Position, { tokens, csrf }: Told = {}): void {
  const known = find(memory, position.session);
  const isOld = known && isNewer(known.position, position);
  const token = csrf ?? csrfToken(memory, position);
  const { secrets } = remember(memory, isOld ? known : { position, secrets: known?.secrets ?? {}, ...(token && { csrf: token }) });
  for (const generation of Object.keys(secrets).map(Number).sort((a, b) => b - a).slice(KEPT)) delete secrets[generation];
  // Each login gets an opening of its own, but all that are still under way share one: which of them succeeds is not known.
  if (memory.announced && memory.announced.commitment === position.commitment) {
    memory.logins = [...memory.logins, memory.announced].slice(-KEPT);
    delete memory.announced;
  }
  if (tokens && !(memory.tokens && isNewer(memory.tokens.position, position))) memory.tokens = { position, ...tokens };
}

/** Where to go on after `superseded`; "again": from what is held now; "lost": nowhere, the openings are gone. */
export function superseded(memory: Memory, sent: Ask, standing: Standing, held: Position): Ask | "again" | "lost" {
  const { named, presented } = standing;
  if (canProve(memory, named) && !isSame(named, sent.about)) return { about: named, newest: false };
  const now = believed(memory, held);
  if (now.session !== sent.about.session || isNewer(now, sent.about)) return "again";
  if (sent.newest || held.session !== named.session || held.generation !== presented) return "again";
  // Said of the token that was presented, with that generation's opening: the server looks at nothing else.
  return canProve(memory, held) || !held.commitment ? { about: held, newest: true } : "lost";
}

/** Where to go on after `proof_required`. */
export function proofRequired(memory: Memory, sent: Ask, { named }: Standing): Ask | "lost" {
  return canProve(memory, named) && !isSame(named, sent.about) ? { about: named, newest: false } : "lost";
}

/** Forgets a session that ended, unless something newer or another session is held; whether it did. */
export function end(memory: Memory, session: string, presented: number): boolean {
  const newest = memory.tokens?.position ?? find(memory, session)?.position;
  if (newest && (newest.session !== session || newest.generation > presented)) return false;
  memory.sessions = memory.sessions.filter(({ position }) => position.session !== session);
  delete memory.tokens;
  return true;
}

/** Whether answers have told of this session. */
export const isKnown = (memory: Memory, session: string): boolean => find(memory, session) !== undefined;

const find = (memory: Memory, session: string) => memory.sessions.find(({ position }) => position.session === session);

const isSame = (a: Position, b: Position) =>
  a.session === b.session && a.generation === b.generation && a.commitment === b.commitment;

const canProve = (memory: Memory, position: Position) => openingOf(memory, position) !== undefined;

function remember(memory: Memory, known: Known): Known {
  const others = memory.sessions.filter(({ position }) => position.session !== known.position.session);
  memory.sessions = [...others, known].slice(-KEPT);
  return known;
}

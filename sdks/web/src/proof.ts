// Openings, commitments, and the header that carries them.

/** An opening with its commitment, both base64url without padding. */
export interface Secret {
  readonly opening: string;
  readonly commitment: string;
}

/** Where a session stands: what a marker, an answer or a storage says of it. */
export interface Position {
  readonly session: string;
  readonly generation: number;
  /** Empty for a bearer generation. */
  readonly commitment: string;
}

/** The proof of one refresh request, as docs/PROTOCOL.md has it. */
export interface Proof {
  readonly session: string;
  readonly generation: number;
  /** Of the next generation's opening. */
  readonly commitment: string;
  /** Of the named generation. */
  readonly opening?: string;
  readonly newest?: boolean;
}

/** SHA-256 of some bytes. */
export type Hash = (bytes: Uint8Array<ArrayBuffer>) => Promise<Uint8Array>;

/** A new secret of 32 random bytes, committed to by the first half of their SHA-256. */
export async function draw(random: (bytes: number) => Uint8Array<ArrayBuffer>, hash: Hash): Promise<Secret> {
  const opening = random(32);
  return { opening: encode(opening), commitment: encode((await hash(opening)).subarray(0, 16)) };
}

/** The value of `Rekindle-Proof` for a refresh: a dictionary of RFC 9651. */
export function proofHeader({ session, generation, commitment, opening, newest }: Proof): string {
  const members = [`sid="${session}"`, `gen=${generation}`, commitmentHeader(commitment)];
  if (opening) members.push(`o=${bytes(opening)}`);
  if (newest) members.push("newest");
  return members.join(", ");
}

/** The value of `Rekindle-Proof` for a request that may start a session. */
export function commitmentHeader(commitment: string): string {
  return `c=${bytes(commitment)}`;
}

/** Reads a marker, `sid.generation.commitment.access_expiry`; anything else is no marker. */
export function readMarker(marker: string | null | undefined): Position | undefined {
  const [session, generation, commitment, expiry, more] = marker?.split(".") ?? [];
  return expiry && more === undefined ? readPosition(session, Number(generation || NaN), commitment) : undefined;
}

/** A position out of somebody else's parts, if they can be one. */
export function readPosition(session: unknown, generation: unknown, commitment: unknown): Position | undefined {
  const isSession = typeof session === "string" && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(session);
  const isGeneration = Number.isInteger(generation) && (generation as number) >= 0 && (generation as number) < 2 ** 32;
  const isBearer = commitment === null || commitment === undefined || commitment === "" || commitment === "A".repeat(22);
  const isCommitment = isBearer || (typeof commitment === "string" && /^[\w-]{22}$/.test(commitment));
  if (!isSession || !isGeneration || !isCommitment) return undefined;
  return { session, generation: generation as number, commitment: isBearer ? "" : (commitment as string) };
}

/** A byte sequence of RFC 9651, from base64url. */
function bytes(text: string): string {
  const padding = "=".repeat(-text.length & 3);
  return `:${text.replaceAll("-", "+").replaceAll("_", "/")}${padding}:`;
}

/** Base64url without padding. */
export function encode(raw: Uint8Array): string {
  const text = btoa(String.fromCharCode(...raw));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// A backend in memory: the decision of docs/PROTOCOL.md, and the routes and headers between a browser and a backend.

import { createHash } from "node:crypto";

const LEEWAY = 10;

const hash = (opening) => createHash("sha256").update(opening, "base64url").digest().subarray(0, 16).toString("base64url");

/** What a refresh leads to, under `refuse`: of the row, the presented position and the proof; `null` is no commitment. */
export function decide({ row, presented, proof, now, session, leeway = LEEWAY }) {
  const [m, n] = [presented.generation, row.generation];
  const isNamed = (generation) => proof?.session_id === session && proof.generation === generation;
  const opens = (commitment) => proof?.opening && commitment && hash(proof.opening) === commitment;
  const theft = (kind) => ({ decision: "theft", kind });
  if (isNamed(m) && proof.commitment === presented.commitment) return { decision: "invalid_proof" };
  if (row.revoked) return { decision: "revoked" };
  if (now >= row.expires_at) return { decision: "expired", which: "absolute" };
  if (m > n) return { decision: "fast_forward" };
  if (now >= row.idle_expires_at) return { decision: "expired", which: "idle" };
  if (m < n && isNamed(n) && opens(row.commitment)) return { decision: "reissue" };
  if (proof && !isNamed(m)) return { decision: "superseded" };
  if (presented.commitment && !proof?.opening) return { decision: "proof_required" };
  if (m === n && presented.commitment !== row.commitment) return theft("forked");
  if (presented.commitment && !opens(presented.commitment)) return theft("stolen_token");
  if (m === n) return { decision: "advance", commitment: proof?.commitment ?? null };
  if (m === n - 1) {
    if (row.commitment && proof?.commitment === row.commitment) return { decision: "reissue" };
    if (presented.commitment || (row.commitment && proof)) return theft("forked");
    const since = Math.max(0, Math.floor(now / 1000) - row.issued_at);
    return !row.confirmed || since < leeway ? { decision: "reissue" } : theft("reused");
  }
  if (!proof) return theft("reused");
  return proof.newest ? theft("forked") : { decision: "superseded" };
}

/** Reads `Rekindle-Proof`. */
export function readProof(header) {
  if (!header) return null;
  const members = Object.fromEntries(
    header.split(", ").map((member) => {
      const [, name, value = ""] = /^([a-z]+)(?:=(.*))?$/.exec(member);
      return [name, value];
    }),
  );
  const bytes = (value) => value && Buffer.from(/^:(.*):$/.exec(value)[1], "base64").toString("base64url");
  return {
    session_id: members.sid && JSON.parse(members.sid),
    generation: members.gen && Number(members.gen),
    commitment: bytes(members.c),
    opening: bytes(members.o),
    newest: "newest" in members,
  };
}

/** A backend with the routes `/login`, `/me`, `/auth/session/refresh` and `/auth/session/signout`. Tokens are their content. */
export class Backend {
  rows = new Map();
  /** Every decision, in order. */
  decisions = [];
  /** How many requests came, by path. */
  counts = new Map();
  #drawn = 0;

  /** `lifetime` of access tokens in milliseconds, by `now()`. */
  constructor(now, lifetime = 5000) {
    this.now = now;
    this.lifetime = lifetime;
  }

  /** The answer: status, body, and either headers or cookies (an empty one is cleared). */
  serve({ path, headers, cookies }) {
    this.counts.set(path, (this.counts.get(path) ?? 0) + 1);
    const isHeader = headers.get("rekindle-mode") === "header";
    const bearer = headers.get("authorization")?.slice("Bearer ".length);
    const access = read(isHeader ? bearer : cookies.get("access"));
    const refresh = read(isHeader ? bearer : cookies.get("refresh"));
    const proof = readProof(headers.get("rekindle-proof"));
    if (path === "/login") return this.#tokens(this.#start(headers.get("user"), proof?.commitment ?? null), isHeader);
    if (path === "/me") return this.#me(access);
    if (path === "/auth/session/refresh") return this.#refresh(refresh, proof, isHeader);
    if (path === "/auth/session/signout") {
      if (proof && refresh && proof.session_id !== refresh.session) return problem(409, "superseded");
      if (refresh) this.rows.get(refresh.session).revoked = true;
      return { status: 204, cookies: isHeader ? [] : cleared() };
    }
    return { status: 404 };
  }

  #start(user, commitment) {
    const session = `0199a3b4-7c00-7000-8000-${String((this.#drawn += 1)).padStart(12, "0")}`;
    const row = { session, user, generation: 0, commitment, confirmed: false, revoked: false };
    this.rows.set(session, { ...row, issued_at: this.now() / 1000, idle_expires_at: Infinity, expires_at: Infinity });
    return session;
  }

  #me(access) {
    if (!access) return problem(401, "unauthorized");
    if (this.now() >= access.expires) return problem(401, "access_token_expired");
    const row = this.rows.get(access.session);
    if (row.generation === access.generation) row.confirmed = true;
    return { status: 200, body: { user: row.user, session: row.session } };
  }

  #refresh(token, proof, isHeader) {
    if (!token) return problem(401, "token_malformed");
    const row = this.rows.get(token.session);
    const decided = decide({ row, presented: token, proof, now: this.now(), session: row.session });
    this.decisions.push(decided.decision);
    const about = { session_id: row.session, presented_generation: token.generation };
    switch (decided.decision) {
      case "advance":
        Object.assign(row, { generation: row.generation + 1, commitment: decided.commitment, confirmed: false });
        row.issued_at = Math.floor(this.now() / 1000);
        return this.#tokens(row.session, isHeader);
      case "reissue":
        return this.#tokens(row.session, isHeader);
      case "superseded":
      case "proof_required": {
        const standing = { ...about, generation: row.generation, ...(row.commitment && { commitment: row.commitment }) };
        return problem(decided.decision === "superseded" ? 409 : 401, decided.decision, standing);
      }
      case "theft":
        row.revoked = true;
        return { ...problem(401, "token_theft_detected", { ...about, kind: decided.kind }), cookies: cleared() };
      case "revoked":
        return { ...problem(401, "session_revoked", about), cookies: cleared() };
      default:
        return problem(400, "invalid_request");
    }
  }

  #tokens(session, isHeader) {
    const { generation, commitment } = this.rows.get(session);
    const access = JSON.stringify({ session, generation, expires: this.now() + this.lifetime });
    const refresh = JSON.stringify({ session, generation, commitment });
    const marker = `${session}.${generation}.${commitment ?? ""}.${Math.floor((this.now() + this.lifetime) / 1000)}`;
    const body = { session_id: session, generation, commitment };
    if (!isHeader) return { status: 200, body, cookies: [["access", access], ["refresh", refresh], ["marker", marker]] };
    const headers = { "Rekindle-Access-Token": access, "Rekindle-Refresh-Token": refresh, "Rekindle-Session": marker };
    return { status: 200, body, headers };
  }
}

const read = (token) => token && JSON.parse(token);

const cleared = () => [["access", ""], ["refresh", ""], ["marker", ""]];

const problem = (status, code, more) => ({ status, problem: true, body: { status, code, ...more } });

// The client: what goes with requests, and what follows from answers.

import { backoff } from "./backoff.js";
import type { Environment } from "./environment.js";
import { type Events, type Reason, RekindleError, type RekindleEvent } from "./events.js";
import {
  type Ask, announce, believed, csrfToken, end, isKnown, isNewer, proofRequired, prove, type Standing, superseded, tell,
  type Told,
} from "./memory.js";
import { commitmentHeader, draw, type Position, proofHeader, readMarker, readPosition } from "./proof.js";

/** What a client has to know. */
export interface Settings {
  /** The origins whose requests belong to the session, like `https://example.com`. The first one has the session's routes. */
  readonly origins: readonly [string, ...string[]];
  /** Under what path the backend has mounted the session's routes. */
  readonly base: string;
  /** How tokens travel: in cookies that no script can read, or in headers. */
  readonly mode: "cookie" | "header";
}

/** An answer, wherever it came from. */
export interface Answer {
  readonly status: number;
  header(name: string): string | null;
  /** The parsed body, if it is a JSON object. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** One request of the application, with its repetitions. */
export interface Passage {
  /** The headers to add, before each time that the request is sent. */
  headers(): Promise<Record<string, string>>;
  /**
   * Whether to send the request again, now that this is the answer. At most twice: once because a token was old, and once more
   * because it had grown old again meanwhile. Rejects with a `TypeError`, as fetch does, if the session could not be refreshed
   * because of the network or an outage.
   */
  again(answer: Answer): Promise<boolean>;
}

/** How often one request of the application is sent. */
const SENDS = 3;
/** How many requests one refresh may take, however often it is told something new. */
const ROUNDS = 8;
/** Milliseconds in which another tab says why a session is over. */
const FRANKNESS = 100;
/** Milliseconds after which an answer is taken for lost. */
const PATIENCE = 15_000;

type Outcome =
  | { readonly is: "refreshed" | "gone" }
  | { readonly is: "unanswered"; readonly cause: unknown; readonly retryAfter?: number }
  | { readonly is: "refused"; readonly error: RekindleError };

const REFRESHED: Outcome = { is: "refreshed" };
const GONE: Outcome = { is: "gone" };

/** The client of one session. All tabs and workers of an origin are in the same session. */
export class Session {
  readonly #settings: Settings;
  readonly #environment: Environment;
  readonly #listeners = new Set<readonly [type: string, listener: (event: never) => void]>();
  /** The session that the application was last told of. */
  #announced: string | undefined;
  #ready: Promise<unknown>;
  #refreshing: Promise<Outcome> | undefined;

  /** Applications call `rekindle` of their platform's entry instead. */
  constructor(settings: Settings, environment: Environment) {
    this.#settings = settings;
    this.#environment = environment;
    environment.listen((message) => this.#hear(message as RekindleEvent));
    this.#ready = this.#look();
  }

  /**
   * Like the platform's `fetch`, but in this session: adds what the backend needs, refreshes an expired access token, and repeats
   * the request after that. Requests to other origins, and those that bring an `Authorization` of their own, are left as they are.
   *
   * Rejects as `fetch` does; with a `TypeError`, too, if the session could not be refreshed because of the network or an outage. If the
   * session is over, the answer is the backend's 401.
   */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const url = typeof input === "string" ? input : input instanceof Request ? input.url : String(input);
    if (!this.concerns(url)) return this.#environment.fetch(input as string | Request, init);
    const request = new Request(input instanceof Request ? input : this.#environment.resolve(url), init);
    // Pages, images and scripts: such requests cannot carry headers.
    const isBare = request.mode === "navigate" || request.mode === "no-cors";
    if (isBare || request.headers.has("authorization")) return this.#environment.fetch(request);
    const isOwn = request.url.startsWith(`${this.#environment.origin}/`);
    const passage = this.passage(request.method);
    for (;;) {
      const headers = new Headers(request.headers);
      for (const [name, value] of Object.entries(await passage.headers())) if (!headers.has(name)) headers.set(name, value);
      // A copy is sent: its body, a stream too, is still there for the next time.
      const sent = request.clone();
      const crosses = this.#settings.mode === "cookie" && request.credentials === "same-origin" && !isOwn;
      const response = await this.#environment.fetch(new Request(sent, { headers, ...(crosses && { credentials: "include" }) }));
      if (!(await until(request.signal, passage.again(await answerOf(response))))) return response;
      await response.body?.cancel();
    }
  };

  /** Makes `globalThis.fetch` the one of this session. */
  install(): void {
    globalThis.fetch = this.fetch;
  }

  /** Whether this client holds a session, as far as it knows without asking the server. Never refreshes anything. */
  async doesSessionExist(): Promise<boolean> {
    return (await this.#held()) !== undefined;
  }

  /**
   * Gets new tokens, unless another tab does so meanwhile. Resolves to whether there is a session afterwards.
   *
   * Rejects with a `TypeError` if there was no answer, and with a `RekindleError` if the server refused for a reason that is no end of
   * the session.
   */
  async attemptRefreshingSession(): Promise<boolean> {
    const held = await this.#held();
    if (!held) return false;
    const outcome = await this.#refresh(held);
    if (outcome.is === "unanswered") throw unanswered(outcome.cause);
    if (outcome.is === "refused") throw outcome.error;
    return outcome.is === "refreshed" || this.doesSessionExist();
  }

  /**
   * Ends the session, here and on the server. Does nothing if there is none.
   *
   * Rejects with a `TypeError` if there was no answer, and with a `RekindleError` if the server refused; the user is still signed in then.
   */
  async signOut(): Promise<void> {
    const outcome = await this.#insist(async () => {
      const held = await this.#held();
      return held ? this.#end(held, () => this.#emit("signedOut", { session: held.session })) : GONE;
    });
    if (outcome.is === "unanswered") throw unanswered(outcome.cause);
    if (outcome.is === "refused") throw outcome.error;
  }

  /** Calls the listener on each event of this type, from whichever tab, until the function that this returns is called. */
  on<Type extends keyof Events>(type: Type, listener: (event: RekindleEvent<Type>) => void): () => void {
    const entry = [type, listener] as const;
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  /** Looks whether the session has changed while this page could not run, as after the back button. */
  async resume(): Promise<void> {
    await this.#ready;
    await this.#look();
  }

  /** Whether requests to this URL belong to the session. */
  concerns(url: string): boolean {
    const absolute = this.#environment.resolve(url);
    const isOwn = [this.#route("refresh"), this.#route("signout")].includes(absolute);
    return !isOwn && this.#settings.origins.some((origin) => absolute.startsWith(`${origin}/`));
  }

  /** Takes a request of the application through this session: for what is not `fetch`. */
  passage(method: string): Passage {
    let sends = 0;
    let held: Position | undefined;
    let isGuarded = false;
    return {
      headers: async () => {
        sends += 1;
        await this.#ready;
        const tokens = this.#settings.mode === "header" ? (await this.#environment.storage.read()).tokens : undefined;
        held = tokens?.position ?? (await this.#held());
        const isSafe = ["GET", "HEAD", "OPTIONS"].includes(method.toUpperCase());
        // With a session, too: what changes something may be a login that replaces it.
        const [commitment, csrf] = held && isSafe ? [] : await this.#announcement(held);
        isGuarded = csrf !== undefined;
        return {
          ...(commitment && { "Rekindle-Proof": commitmentHeader(commitment) }),
          ...(csrf && { "anti-csrf": csrf }),
          ...(this.#settings.mode === "header" && { "Rekindle-Mode": "header" }),
          ...(tokens && { Authorization: `Bearer ${tokens.access}` }),
        };
      },
      again: async (answer) => {
        const hasTokens = await this.#note(answer);
        if (held && isTerminal(answer)) await this.#over(held, answer);
        else await this.#look();
        const { code } = answer.body;
        // A tab may have died before it stored the token against CSRF that came with the cookies: the next refresh brings another.
        const isOld = code === "access_token_expired" || (code === "csrf_failed" && !isGuarded);
        if (!held || hasTokens || sends >= SENDS || !isOld) return false;
        const outcome = await this.#refresh(held);
        if (outcome.is === "unanswered") throw unanswered(outcome.cause);
        return outcome.is === "refreshed";
      },
    };
  }

  /** What the next request goes with: the cookie that the marker tells of, or the stored token. */
  async #held(): Promise<Position | undefined> {
    const marker = this.#settings.mode === "cookie" ? await this.#environment.marker() : undefined;
    if (marker !== undefined) return readMarker(marker);
    const { tokens, sessions } = await this.#environment.storage.read();
    return this.#settings.mode === "header" ? tokens?.position : sessions.at(-1)?.position;
  }

  /** New tokens, later than those at `since`. All that ask at once share the answer. */
  #refresh(since: Position): Promise<Outcome> {
    return (this.#refreshing ??= this.#insist(() => this.#exchange(since)).finally(() => (this.#refreshing = undefined)));
  }

  /** Tries until there is an answer, but not for ever. Between the tries, other tabs may have theirs. */
  async #insist(exchange: () => Promise<Outcome>): Promise<Outcome> {
    for (let attempt = 0; ; attempt++) {
      const outcome = await this.#environment.exclusively(exchange).catch((cause): Outcome => ({ is: "unanswered", cause }));
      if (outcome.is === "refused") this.#emit("failed", { error: outcome.error });
      if (outcome.is !== "unanswered") return outcome;
      const wait = backoff(attempt, this.#environment.random(1)[0]! / 256, outcome.retryAfter);
      if (wait === undefined) {
        this.#emit("offline", { cause: outcome.cause });
        return outcome;
      }
      await this.#environment.sleep(wait);
    }
  }

  /** One exchange with the server, from reading the storage to a final answer: docs/PROTOCOL.md, "The client". */
  async #exchange(since: Position): Promise<Outcome> {
    const { storage } = this.#environment;
    let go: Ask | undefined;
    for (let round = 0; round < ROUNDS; round++) {
      const held = await this.#held();
      if (held && isNewer(held, since)) return REFRESHED;
      // Another session: what was asked for in the first one is not repeated in it.
      if (held?.session !== since.session) return GONE;
      let sent: Ask | undefined;
      let header: string | undefined;
      try {
        const drawn = await this.#draw();
        [sent, header] = await storage.update((memory) => {
          const ask = go ?? { about: believed(memory, held), newest: false };
          return [ask, proofHeader(prove(memory, ask, drawn))] as const;
        });
      } catch (cause) {
        // Without storage there are no openings: such a client is served by the bearer rules, if it has been from the start.
        if (held.commitment || this.#settings.mode === "header") return { is: "unanswered", cause };
      }
      const answer = await this.#ask("refresh", header);
      if (!("status" in answer)) {
        // The answer was lost on the way, but perhaps its cookies were not.
        const now = await this.#held();
        return answer.is === "unanswered" && now && isNewer(now, since) ? REFRESHED : answer;
      }
      if (answer.status === 200) return this.#refreshed(answer);
      if (isTerminal(answer)) {
        await this.#over(held, answer);
        return GONE;
      }
      const standing = readStanding(answer.body);
      if (!standing || !sent) return { is: "refused", error: errorOf(answer) };
      const now = (await this.#held()) ?? held;
      const code = answer.body["code"] as Reason;
      const next = await storage.update((memory) =>
        code === "superseded" ? superseded(memory, sent, standing, now) : proofRequired(memory, sent, standing),
      );
      if (next === "lost") {
        return this.#end(held, () => this.#emit("expired", { session: held.session, reason: code }));
      }
      go = next === "again" ? undefined : next;
    }
    return { is: "unanswered", cause: new Error(`no end after ${ROUNDS} answers`) };
  }

  /** Signs out with the token that is held, and forgets the session when that is answered. */
  async #end(held: Position, report: () => void): Promise<Outcome> {
    const drawn = await this.#draw();
    // It names the session: another one that has come into this browser meanwhile is not signed out.
    const named = this.#environment.storage.update((memory) => {
      const { session, generation, commitment } = prove(memory, { about: held, newest: false }, drawn);
      return proofHeader({ session, generation, commitment });
    });
    const answer = await this.#ask("signout", await named.catch(() => undefined));
    if (!("status" in answer)) return answer;
    if (answer.body["code"] === "superseded") return { is: "unanswered", cause: errorOf(answer) };
    if (answer.status >= 300 && !isTerminal(answer)) return { is: "refused", error: errorOf(answer) };
    await this.#forget(held.session, held.generation, report);
    return GONE;
  }

  /** Keeps what a refresh brought. */
  async #refreshed(answer: Answer): Promise<Outcome> {
    const { body } = answer;
    const position =
      readMarker(answer.header("Rekindle-Session")) ??
      readPosition(body["session_id"], body["generation"], body["commitment"]);
    if (!position) return { is: "refused", error: new RekindleError("", 200, "the answer does not say where the session stands") };
    await this.#tell(position, readTold(answer), false);
    this.#emit("refreshed", { session: position.session, generation: position.generation });
    return REFRESHED;
  }

  /** A terminal answer: the session that it names is over. */
  async #over(held: Position, { body }: Answer): Promise<void> {
    const session = typeof body["session_id"] === "string" ? body["session_id"] : held.session;
    const presented = typeof body["presented_generation"] === "number" ? body["presented_generation"] : held.generation;
    await this.#forget(session, presented, () => {
      if (body["code"] === "token_theft_detected") this.#emit("theft", { session, kind: String(body["kind"] ?? "") });
      else this.#emit("expired", { session, reason: body["code"] as Reason });
    });
  }

  async #forget(session: string, presented: number, report: () => void): Promise<void> {
    const forgotten = await this.#environment.storage.update((memory) => end(memory, session, presented)).catch(() => true);
    if (forgotten && this.#announced === session) report();
  }

  /** Stores what an answer to the application brings, as one to a login does; whether it brings any tokens. */
  async #note(answer: Answer): Promise<boolean> {
    const told = readTold(answer);
    const position = readMarker(answer.header("Rekindle-Session")) ?? (told.csrf ? await this.#held() : undefined);
    if (position) await this.#began(position, told);
    return position !== undefined;
  }

  /** Compares the session that is held with the one that the application knows of. */
  async #look(): Promise<void> {
    const held = await this.#held().catch(() => undefined);
    if (held?.session === this.#announced) return;
    if (held) return this.#began(held, {});
    // Nobody waits for this: the application's answer is there.
    void this.#vanished(this.#announced!);
  }

  /** A session that may be new. Of all tabs that see it, the one that stores it first says so. */
  async #began(position: Position, told: Told): Promise<void> {
    const isNew = await this.#tell(position, told, true);
    this.#announced = position.session;
    if (isNew) this.#emit("created", { session: position.session });
  }

  /** Stores what an answer says; whether the session was not known before. */
  async #tell(position: Position, told: Told, replaces: boolean): Promise<boolean> {
    const isHeader = this.#settings.mode === "header";
    const done = this.#environment.storage.update((memory) => {
      const isSame = memory.tokens?.position.session === position.session;
      const isNew = !isKnown(memory, position.session);
      tell(memory, position, isHeader && !isSame && !replaces ? {} : told);
      return isNew;
    });
    // Cookies are stored whatever happens here, and the marker says where they stand.
    return isHeader ? done : done.catch(() => true);
  }

  /** The session's marker is gone. If nobody says why, somebody has signed out by a route of the application. */
  async #vanished(session: string): Promise<void> {
    await this.#environment.exclusively(async () => {});
    await this.#environment.sleep(FRANKNESS);
    if (this.#announced === session && !(await this.#held())) this.#emit("signedOut", { session });
  }

  async #announcement(held: Position | undefined): Promise<readonly [commitment?: string, csrf?: string | undefined]> {
    const drawn = await this.#draw();
    const read = this.#environment.storage.update((memory) => [announce(memory, drawn), csrfToken(memory, held)] as const);
    // Without storage, a login begins a bearer session.
    return read.catch(() => []);
  }

  #draw() {
    return draw((bytes) => this.#environment.random(bytes), this.#environment.hash);
  }

  /** A request to one of the session's own routes. */
  async #ask(route: "refresh" | "signout", proof: string | undefined): Promise<Answer | Outcome> {
    const isHeader = this.#settings.mode === "header";
    const refresh = isHeader && (await this.#environment.storage.read()).tokens?.refresh;
    const abort = new AbortController();
    void this.#environment.sleep(PATIENCE).then(() => abort.abort());
    try {
      const response = await this.#environment.fetch(this.#route(route), {
        method: "POST",
        credentials: isHeader ? "omit" : "include",
        cache: "no-store",
        signal: abort.signal,
        headers: {
          ...(proof ? { "Rekindle-Proof": proof } : { "Rekindle-Request": "1" }),
          ...(isHeader && { "Rekindle-Mode": "header" }),
          ...(refresh && { Authorization: `Bearer ${refresh}` }),
        },
      });
      const answer = await answerOf(response, true);
      if (answer.status < 500 && answer.status !== 429) return answer;
      const retryAfter = Number(answer.header("Retry-After")) || 0;
      return { is: "unanswered", cause: errorOf(answer), retryAfter };
    } catch (cause) {
      return { is: "unanswered", cause };
    }
  }

  #route(name: string): string {
    return `${this.#settings.origins[0]}${this.#settings.base}/session/${name}`;
  }

  #emit<Type extends keyof Events>(type: Type, detail: Events[Type]): void {
    const event = { type, here: true, ...detail } as unknown as RekindleEvent;
    this.#deliver(event);
    // What concerns this tab alone stays here; an error cannot be copied to another one, either.
    if (type !== "offline" && type !== "failed") this.#environment.post({ ...event, here: false });
  }

  #hear(event: RekindleEvent): void {
    if ("session" in event && event.type !== "refreshed" && event.type !== "created" && event.session !== this.#announced) return;
    this.#deliver(event);
  }

  #deliver(event: RekindleEvent): void {
    if (event.type === "created") this.#announced = event.session;
    if (event.type === "signedOut" || event.type === "expired" || event.type === "theft") this.#announced = undefined;
    for (const [type, listener] of this.#listeners) if (type === event.type) listener(event as never);
  }
}

/** What an error of the network looks like to those who use `fetch`. */
const unanswered = (cause: unknown) => new TypeError("the session could not be refreshed: there was no answer", { cause });

function readTold(answer: Answer): Told {
  const access = answer.header("Rekindle-Access-Token");
  const refresh = answer.header("Rekindle-Refresh-Token");
  const csrf = answer.header("anti-csrf");
  return { ...(access && refresh && { tokens: { access, refresh } }), ...(csrf && { csrf }) };
}

const errorOf = ({ body, status }: Answer) =>
  new RekindleError(String(body["code"] ?? ""), status, typeof body["detail"] === "string" ? body["detail"] : undefined);

const isTerminal = ({ body }: Answer) =>
  ["session_expired", "session_revoked", "token_theft_detected"].includes(body["code"] as string);

function readStanding(body: Answer["body"]): Standing | undefined {
  const named = readPosition(body["session_id"], body["generation"], body["commitment"]);
  const presented = body["presented_generation"];
  const isOne = body["code"] === "superseded" || body["code"] === "proof_required";
  return isOne && named && typeof presented === "number" ? { named, presented } : undefined;
}

/** What this client reads of an answer: of the application's own, only bodies that may be about the session. */
async function answerOf(response: Response, isOwn = false): Promise<Answer> {
  const isProblem = response.headers.get("content-type")?.startsWith("application/problem+json");
  let body: unknown;
  if (isOwn || isProblem) {
    const text = await (isOwn ? response : response.clone()).text();
    try {
      body = JSON.parse(text);
    } catch {
      // Not JSON: it says nothing to this client.
    }
  }
  const isObject = typeof body === "object" && body !== null;
  return {
    status: response.status,
    header: (name) => response.headers.get(name),
    body: isObject ? (body as Answer["body"]) : {},
  };
}

/** The work's result, unless the signal comes first. */
function until<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    work.then(resolve, reject);
  });
}

// Sessions of requests: what every framework's middleware does, and the middleware of some.

"use strict";

const { asked } = require("./errors");
const { camel, snake } = require("./shapes");

/** Under what name a request carries its visit; a `WeakMap` would cost more than the rest of it. */
const VISIT = Symbol.for("rekindle.visit");
/** Answers, and prototypes of answers, whose `writeHead` is ours. */
const guarded = new WeakSet();

class Web {
  #site;
  #wanted;
  /** By method and headers: what was found for another request a moment ago. */
  #memory;
  #forget;

  /** Made by `Rekindle.web`. */
  constructor(site, memory, forget) {
    this.#site = site;
    this.#wanted = new Set(site.headers());
    this.#memory = memory;
    this.#forget = forget;
  }

  /** The token against CSRF of a session's generation; undefined without a `csrfKey`. */
  csrfToken(sessionId, generation) {
    return this.#site.csrfToken(sessionId, generation) ?? undefined;
  }

  /** Whether a text is that token; true without a `csrfKey`. */
  csrfMatches(given, sessionId, generation) {
    return this.#site.csrfMatches(String(given), sessionId, generation);
  }

  /** A request, in whatever way it came: `headers` are pairs of name and value. */
  visit({ method, path, headers, authority, ip }) {
    let lines = "";
    for (const [name, value] of headers) lines += this.#line(name, value);
    return this.#visit(method, path, lines, authority, () => ip);
  }

  #visit(method, path, lines, authority, address) {
    const begin = () => this.#site.exchange(method, path, lines, authority);
    // Only the session's own routes look at the path.
    const memory = path.includes("/session/") ? undefined : this.#memory;
    const key = `${method} ${authority}\n${lines}`;
    const remember = (found, expiresAt) => memory?.set(key, found, expiresAt);
    return new Visit({ begin, address, forget: this.#forget, known: memory?.get(key), remember });
  }

  /** A header as an exchange reads it; nothing, if it does not look at it. */
  #line(name, value) {
    const lower = name.toLowerCase();
    return this.#wanted.has(lower) ? `${lower}: ${value}\n` : "";
  }

  /** A request of `node:http` or `node:http2`, and of what is built on it; `address` says from where it comes. */
  visitOf(req, address = () => req.ip ?? req.socket.remoteAddress) {
    const known = req[VISIT];
    if (known) return known;
    const { rawHeaders } = req;
    let [lines, authority] = [""];
    for (let at = 0; at < rawHeaders.length; at += 2) {
      const [name, value] = [rawHeaders[at], rawHeaders[at + 1]];
      if (name === ":authority") authority = value;
      else lines += this.#line(name, value);
    }
    const [path] = (req.originalUrl ?? req.url).split("?");
    return (req[VISIT] = this.#visit(req.method, path, lines, authority, address));
  }

  /** Middleware `(req, res, next)` for Express, Connect and `node:http`: for every request, and before anything that needs a session. */
  express() {
    return (req, res, next) => {
      const visit = this.visitOf(req);
      visit.guard(res);
      if (visit.isKnown) next();
      else this.#serve(visit, req, res).then((served) => served || next(), next);
    };
  }

  /** Whether a request of `node:http` was answered. */
  async #serve(visit, req, res) {
    const answer = await visit.own(() => bodyOf(req, visit.longestBody));
    if (answer) send(res, answer);
    return answer !== undefined;
  }

  /** Middleware that lets only requests with a session through: `req.session` has it. */
  required(need) {
    return (req, res, next) => {
      this.session(req, need).then((session) => {
        req.session = session;
        next();
      }, next);
    };
  }

  /** Answers the errors of sessions, behind all routes of Express; others are passed on. */
  errors() {
    return (error, req, res, next) => {
      const answer = answerOf(error);
      if (answer && !res.headersSent) send(res, answer);
      else next(error);
    };
  }

  /** The session of a request of `node:http`. Throws a `Refusal` without a good one. */
  session(req, need) {
    return this.visitOf(req).session(need);
  }

  /** The same, or undefined where there is none. */
  sessionIfAny(req, need) {
    return this.visitOf(req).sessionIfAny(need);
  }

  /** Starts a session, and gives its cookies to the answer. */
  async signIn(req, res, start, options) {
    const { tokens, headers } = await this.visitOf(req).signIn(start, options);
    for (const [name, value] of headers) append(res, name, value);
    return tokens;
  }

  /** Plugin for Fastify: `fastify.register(web.fastify())`; then `request.rekindle` is the visit. */
  fastify() {
    const give = (reply, { status, headers, body }) => {
      reply.code(status);
      // Fastify gathers cookies by itself.
      for (const [name, value] of headers) reply.header(name, value);
      return reply.send(body);
    };
    const plugin = async (fastify) => {
      fastify.decorateRequest("rekindle", null);
      // The routes' bodies are read by Fastify, whatever they say they are.
      fastify.addHook("onRequest", async (request, reply) => {
        const visit = this.visitOf(request.raw, () => request.ip);
        request.rekindle = visit;
        const answer = await visit.own(() => bodyOf(request.raw, visit.longestBody));
        if (answer) return give(reply, answer);
      });
      fastify.addHook("onSend", async (request, reply, payload) => {
        merge(request.rekindle?.headers() ?? [], {
          has: (name) => reply.hasHeader(name),
          add: (name, value) => reply.header(name, name === "vary" ? joined(reply.getHeader(name), value) : value),
        });
        return payload;
      });
      fastify.setErrorHandler((error, request, reply) => {
        const answer = answerOf(error);
        if (!answer) throw error;
        return give(reply, answer);
      });
    };
    // As `fastify-plugin` does: the hooks are for the whole application.
    plugin[Symbol.for("skip-override")] = true;
    return plugin;
  }

  /** Middleware for Koa; then `ctx.state.rekindle` is the visit. */
  koa() {
    return async (ctx, next) => {
      const visit = this.visitOf(ctx.req, () => ctx.ip);
      ctx.state.rekindle = visit;
      const give = ({ status, headers, body }) => {
        ctx.status = status;
        if (body !== "") ctx.body = body;
        // After the body, which sets a type of its own.
        for (const [name, value] of headers) name === "set-cookie" ? ctx.append(name, value) : ctx.set(name, value);
      };
      const own = await visit.own(() => bodyOf(ctx.req, visit.longestBody));
      try {
        if (own) give(own);
        else await next();
      } catch (error) {
        const answer = answerOf(error);
        if (!answer) throw error;
        give(answer);
      }
      merge(visit.headers(), {
        has: (name) => ctx.response.has(name),
        add: (name, value) => (name === "vary" ? ctx.vary(value) : ctx.append(name, value)),
      });
    };
  }

  /** A visit of a `Request`, as the fetch API has it: for Next.js, Hono and what else speaks it. */
  visitOfRequest(request, { ip } = {}) {
    const { pathname, host } = new URL(request.url);
    const visit = this.visit({ method: request.method, path: pathname, headers: request.headers, authority: host, ip });
    return visit;
  }

  /** A handler of `Request`s, with the visit as its second argument. */
  handler(handle) {
    return async (request, about) => {
      const visit = this.visitOfRequest(request, about);
      const own = await visit.own(async () => Buffer.from(await request.arrayBuffer()));
      const answered = async () => {
        try {
          return await handle(request, visit);
        } catch (error) {
          const answer = answerOf(error);
          if (!answer) throw error;
          return responseOf(answer);
        }
      };
      return visit.finish(own ? responseOf(own) : await answered());
    };
  }

  /** Middleware for Hono; then `c.get("rekindle")` is the visit. */
  hono() {
    return async (c, next) => {
      const visit = this.visitOfRequest(c.req.raw);
      c.set("rekindle", visit);
      const own = await visit.own(async () => Buffer.from(await c.req.raw.arrayBuffer()));
      if (own) c.res = responseOf(own);
      else await next();
      const answer = c.error && answerOf(c.error);
      if (answer) {
        c.res = undefined;
        c.res = responseOf(answer);
      }
      c.res = visit.finish(c.res);
    };
  }
}

/** One request, and what its answer needs. */
class Visit {
  /** `begin` makes the native half; `address` says from where the request comes; `known` is what was found for one like it, `remember` keeps that. */
  #about;
  #begun;
  #isLocated = false;
  #isGuarding = false;
  /** Whether `own` found that the application is to answer. */
  #isTheirs = false;
  /** Whether a session was asked for: the answer is for nobody else. */
  #isPersonal = false;
  /** What a sign-in, a sign-out or an elevation gives to the answer. */
  #given = [];

  constructor(about) {
    this.#about = about;
  }

  /** The native half, which the likes of a known request need not have. */
  get #exchange() {
    return (this.#begun ??= this.#about.begin());
  }

  /** The same, once it knows from where the request comes: whatever is written down says that. Express takes its time to find out. */
  #located() {
    const ip = this.#isLocated ? undefined : this.#about.address();
    this.#isLocated = true;
    if (ip) this.#exchange.comesFrom(ip);
    return this.#exchange;
  }

  /** Whether one like it was for the application a moment ago: then `own` need not be asked. */
  get isKnown() {
    return this.#about.known !== undefined;
  }

  /** How many bytes of a body `own` reads at most. */
  get longestBody() {
    return this.#exchange.longestBody;
  }

  /** The answer to give in place of the application's, if there is one; `body` reads the request's. */
  async own(body) {
    if (this.isKnown) return undefined;
    const early = this.#exchange.early();
    this.#isTheirs = early === false;
    if (early !== true) return early || undefined;
    const answer = await asked(this.#located().answer(await body()));
    // It may have ended sessions.
    this.#about.forget();
    return answer;
  }

  /** The request's session. Throws a `Refusal` without a good one. */
  async session({ trust, mint = false } = {}) {
    this.#isPersonal = true;
    const { known, remember, forget } = this.#about;
    const native = (trust === undefined && known?.native) || (await this.#native(trust, mint));
    if (trust === undefined && !mint && this.#isTheirs) remember({ native, headers: this.#exchange.headers() }, native.expiresAt);
    // What is written down says from where this very request comes.
    const located = () => (this.#located(), this.#native(trust, mint));
    return new Session(native, { give: (headers) => this.#give(headers), located, forget });
  }

  async #native(trust, mint) {
    const found = await asked((async () => this.#exchange.session(trust, mint))());
    if (found.answer) throw new Refusal(found.answer, found.absent, found.code);
    return found;
  }

  /** The same, or undefined where there is none, or its token has expired. */
  async sessionIfAny(need) {
    return this.session(need).catch((error) => {
      if (error instanceof Refusal && error.isAbsence) return undefined;
      throw error;
    });
  }

  /** Starts a session; with `remember: false` its cookies end with the browser. `headers` belong to the answer, and `headers()` has them. */
  async signIn(start, { remember = true } = {}) {
    const { tokens, headers } = await asked(this.#located().signIn(snake(start), remember));
    // The session that this client had is over.
    this.#about.forget();
    return { tokens: camel(tokens), headers: this.#give(headers) };
  }

  /** Rotates the request's refresh token; the answer of the route that does so. */
  async refresh() {
    const answer = await asked(this.#located().refresh());
    this.#about.forget();
    return answer;
  }

  /** The headers that take this client's cookies back. */
  cleared() {
    return this.#exchange.cleared();
  }

  #give(given) {
    this.#given.push(...given);
    return given;
  }

  /** What the answer needs beside its own headers, as pairs. */
  headers() {
    return [...this.#given, ...this.#headers()];
  }

  #headers() {
    return (this.#isPersonal && this.#about.known?.headers) || this.#exchange.headers();
  }

  /** Adds it to a `Response`. */
  finish(response) {
    const headers = new Headers(response.headers);
    merge(this.headers(), { has: (name) => headers.has(name), add: (name, value) => headers.append(name, value) });
    const { status, statusText } = response;
    return new Response(response.body, { status, statusText, headers });
  }

  /** Adds it to an answer of `node:http` when its headers are written. */
  guard(res) {
    this.#isGuarding = true;
    // Express has a prototype for the answers of each application, and those of mounted ones inherit from it. Each answer has a shape of its
    // own, so that whatever is added to it is slow.
    let app = res.app;
    while (app?.parent) app = app.parent;
    const kind = app?.response ?? res;
    if (guarded.has(kind)) return;
    guarded.add(kind);
    kind.writeHead = guarding(kind.writeHead);
  }

  /** Adds it, where it was not. */
  complete(res) {
    if (!this.#isGuarding) return;
    this.#isGuarding = false;
    merge(this.#headers(), { has: (name) => res.hasHeader(name), add: (name, value) => append(res, name, value) });
  }
}

/** In place of `writeHead`: adds what the head of this answer needs. */
const guarding = (writeHead) =>
  function (...args) {
    this.req?.[VISIT]?.complete(this);
    return writeHead.apply(this, args);
  };

/** The session of a request. */
class Session {
  #session;
  /** What its visit does for it. */
  #visit;
  #says;

  constructor(session, visit) {
    this.#session = session;
    this.#visit = visit;
  }

  /** Its id. */
  get id() {
    return this.#session.id;
  }

  /** Whose it is. */
  get userId() {
    return this.#session.userId;
  }

  /** Its own claims. */
  get claims() {
    return this.says.claims;
  }

  /** All that its access token says. */
  get says() {
    return (this.#says ??= camel(this.#session.verified));
  }

  /** Its row, with the application's data. */
  async read() {
    return camel(await asked(this.#session.read()));
  }

  /** Changes its data and claims: merge patches (RFC 7396). */
  async patch(patch) {
    return camel(await asked(this.#session.patch(snake(patch))));
  }

  /** Ends it, and takes the cookies back from the answer's client. */
  async signOut(res) {
    const headers = await asked(this.#session.signOut());
    this.#visit.forget();
    return this.#carry(res, this.#visit.give(headers));
  }

  /** Notes that the user has authenticated again, and gives new tokens to the answer's client. */
  async elevate(res, auth) {
    const session = await this.#visit.located();
    const { tokens, headers } = await asked(session.elevate(snake({ time: new Date(), amr: [], ...auth })));
    this.#visit.forget();
    this.#carry(res, this.#visit.give(headers));
    return camel(tokens);
  }

  /** Throws `reauthentication_required` if the user signed in too long ago. */
  requireFreshSignIn() {
    return asked((async () => this.#session.requireFreshSignIn())());
  }

  /** `res` of `node:http`; with other frameworks there is none, and the visit's `headers()` carry it. */
  #carry(res, headers) {
    if (res) for (const [name, value] of headers) append(res, name, value);
  }
}

/** A request without a session that needs one: `answer` says so to its client. */
class Refusal extends Error {
  constructor(answer, isAbsence, code) {
    super(`the request has no good session: ${code}`);
    this.name = "Refusal";
    this.code = code;
    this.status = answer.status;
    this.isAbsence = isAbsence;
    this.answer = answer;
  }
}

/** The answer to an error of sessions; undefined for any other. */
const answerOf = (error) => {
  if (error instanceof Refusal) return error.answer;
  if (error?.name !== "RekindleError") return undefined;
  const { code, status, message: detail } = error;
  const headers = [["content-type", "application/problem+json"], ["cache-control", "no-store"]];
  if (error.retryAfter) headers.push(["retry-after", String(error.retryAfter)]);
  const about = snake({ which: error.which, sessionId: error.sessionId, presentedGeneration: error.presentedGeneration, fields: error.fields, maxAge: error.maxAge });
  return { status, headers, body: JSON.stringify({ type: `urn:rekindle:problem:${code}`, status, code, detail, ...about }) };
};

/** An answer by `node:http`. */
const send = (res, { status, headers, body }) => {
  res.statusCode = status;
  for (const [name, value] of headers) append(res, name, value);
  res.end(body);
};

/** Adds a header that may be there: cookies in turn, `vary` in one line. */
const append = (res, name, value) => {
  const before = res.getHeader(name);
  if (name === "set-cookie" && before !== undefined) res.setHeader(name, [before, value].flat());
  else res.setHeader(name, name === "vary" ? joined(before, value) : value);
};

const joined = (before, value) => (before === undefined ? value : `${before}, ${value}`);

/** Adds what an answer does not have, cookies beside its cookies; of ours, what a sign-in says goes before what every personal answer says. */
const merge = (headers, { has, add }) => {
  for (const [name, value] of headers) {
    if (MANY.has(name) || !has(name)) add(name, value);
  }
};

/** Headers of which there may be several. */
const MANY = new Set(["set-cookie", "vary"]);

const responseOf = ({ status, headers, body }) =>
  // The fetch API has no empty text with 204.
  new Response(body === "" ? null : body, { status, headers });

/** A request's body of at most one byte more than `limit`; a parser before us may have read it. */
const bodyOf = async (req, limit) => {
  if (req.body !== undefined) {
    return Buffer.isBuffer(req.body) || typeof req.body === "string" ? Buffer.from(req.body) : Buffer.from(JSON.stringify(req.body));
  }
  const parts = [];
  let length = 0;
  for await (const part of req) {
    parts.push(part);
    length += part.length;
    if (length > limit) break;
  }
  return Buffer.concat(parts).subarray(0, limit + 1);
};

module.exports = { Refusal, Session, Visit, Web, append };

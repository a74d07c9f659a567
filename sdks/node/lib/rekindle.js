// The handle: the same methods, whether the engine is in this process or on servers.

"use strict";

const { asked, told } = require("./errors");
const { Memory } = require("./memory");
const { Host } = require("./native");
const { Sessions } = require("./sessions");
const { camel, snake } = require("./shapes");
const { Web } = require("./web");

/** How many verified tokens are remembered on this side of the border, and how many requests with a session. */
const [TOKENS, REQUESTS] = [10_000, 1_000];

class Rekindle {
  #host;
  #place;
  #native;
  /** What tokens say. */
  #known = new Memory(TOKENS);
  /** That, and what the requests of each `web` were. */
  #memories = [this.#known];

  /** Made by `embedded` and `remote`. */
  constructor(host, place, native) {
    this.#host = host;
    this.#place = place;
    this.#native = native;
    this.sessions = new Sessions(this);
    // What ended is forgotten at once, and not in half a second.
    native.onRevoked(() => this.#forget());
  }

  /** The engine in this process. */
  static async embedded({ product, env, tag, ...options } = {}) {
    if (typeof options.secrets === "function") options.secrets = await options.secrets();
    return Rekindle.#of(await asked(Host.embedded(snake(options))), { product, env, tag });
  }

  /** The engine on servers; none of them has to be up. */
  static async remote({ product, env, tag, server, servers = [server], ...options }) {
    if (typeof options.apiKey === "function") options.apiKey = await options.apiKey();
    try {
      return await Rekindle.#of(Host.remote(snake({ servers, ...options })), { product, env, tag });
    } catch (error) {
      throw told(error);
    }
  }

  static async #of(host, { product = "default", env = "dev", tag = "default" }) {
    return new Rekindle(host, { product, env, tag }, await asked(host.handle(product, env, tag)));
  }

  /** The sessions of another product, environment or definition of the same host. */
  at(place) {
    return Rekindle.#of(this.#host, { ...this.#place, ...place });
  }

  /** Where these sessions belong. */
  get place() {
    return { ...this.#place };
  }

  /** Makes or changes a session definition. */
  async define(definition) {
    await asked(this.#host.define(this.#place.product, snake(definition)));
  }

  async start(start = {}) {
    return camel(await asked(this.#native.start(snake(start))));
  }

  async refresh(refresh) {
    return camel(await asked(this.#native.refresh(snake(refresh))));
  }

  async elevate({ auth, ...refresh }) {
    return camel(await this.#forgetting(this.#native.elevate(snake(refresh), snake({ time: new Date(), amr: [], ...auth }))));
  }

  async mint(refreshToken, { lifetime } = {}) {
    return camel(await asked(this.#native.mint(refreshToken, lifetime)));
  }

  async verify(accessToken, { trust = "fail-open" } = {}) {
    return (trust === "fail-open" && this.#known.get(accessToken)) || this.#verify(accessToken, trust);
  }

  async #verify(accessToken, trust) {
    let says;
    try {
      says = await this.#native.verify(accessToken, trust);
    } catch (error) {
      this.#known.delete(accessToken);
      throw told(error);
    }
    says = Object.freeze(camel(says));
    this.#known.set(accessToken, says, says.expiresAt);
    return says;
  }

  async confirm(seen) {
    await asked(this.#native.confirm(seen.map(({ sessionId, generation }) => [sessionId, generation])));
  }

  async signOut(token) {
    await this.#forgetting(this.#native.signOut(token));
  }

  async revoke(sessionId) {
    await this.#forgetting(this.#native.revoke(sessionId));
  }

  async revokeUser(userId, { except } = {}) {
    return this.#forgetting(this.#native.revokeUser(userId, except));
  }

  async credentialChanged(userId, { keep } = {}) {
    return this.#forgetting(this.#native.credentialChanged(userId, keep));
  }

  /** What this process ended it does not believe a moment longer. */
  async #forgetting(promise) {
    const done = await asked(promise);
    this.#forget();
    return done;
  }

  #forget() {
    for (const memory of this.#memories) memory.clear();
  }

  async list(list = {}) {
    return camel(await asked(this.#native.list(snake(list))));
  }

  async read(sessionId) {
    return camel(await asked(this.#native.read(sessionId)));
  }

  async patch(sessionId, patch) {
    return camel(await asked(this.#native.patch(sessionId, snake(patch))));
  }

  onRevoked(told) {
    this.#native.onRevoked((sessionId, belowGeneration) => told({ sessionId, belowGeneration: belowGeneration ?? undefined }));
  }

  get isStale() {
    return this.#native.isStale();
  }

  async sweep() {
    return asked(this.#native.sweep());
  }

  /** The sessions of requests: cookies, CSRF, routes. */
  web(settings = {}) {
    try {
      const { csrfKey, ...rest } = settings;
      const site = this.#native.site(snake(rest), csrfKey && Buffer.from(csrfKey));
      // Whoever wants to know more of each session than that it was good a moment ago asks each time.
      const memory = (rest.trust ?? "fail-open") === "fail-open" ? new Memory(REQUESTS) : undefined;
      if (memory) this.#memories.push(memory);
      return new Web(site, memory, () => this.#forget());
    } catch (error) {
      throw told(error);
    }
  }
}

module.exports = { Rekindle };

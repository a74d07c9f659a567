// The handle: the same methods, whether the engine is in this process or on servers.

"use strict";

const { asked, told } = require("./errors");
const { Host } = require("./native");
const { Sessions } = require("./sessions");
const { camel, snake } = require("./shapes");
const { Web } = require("./web");

/** How many verified tokens are remembered on this side of the border, and for how many milliseconds. */
const [REMEMBERED, REMEMBERED_FOR] = [10_000, 500];

/** The present moment, which does not go back. */
const now = () => performance.now();

class Rekindle {
  #host;
  #place;
  #native;
  /** By token: until when to believe it, when it expires, and what it says. */
  #known = new Map();

  /** Made by `embedded` and `remote`. */
  constructor(host, place, native) {
    this.#host = host;
    this.#place = place;
    this.#native = native;
    this.sessions = new Sessions(this);
    // What ended is forgotten at once, and not in half a second.
    native.onRevoked(() => this.#known.clear());
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
    const known = trust === "fail-open" && this.#known.get(accessToken);
    if (known && known.until > now() && known.says.expiresAt > Date.now()) return known.says;
    return this.#verify(accessToken, trust);
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
    // The oldest goes: a token in use comes back.
    if (this.#known.size >= REMEMBERED) this.#known.delete(this.#known.keys().next().value);
    this.#known.set(accessToken, { until: now() + REMEMBERED_FOR, says });
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
    this.#known.clear();
    return done;
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
      return new Web(this.#native.site(snake(rest), csrfKey && Buffer.from(csrfKey)));
    } catch (error) {
      throw told(error);
    }
  }
}

module.exports = { Rekindle };

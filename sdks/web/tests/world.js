// Browsers without a browser: tabs with one storage and one cookie jar, a network, and a clock that only tests move.

import { empty } from "../dist/memory.js";
import { Session } from "../dist/session.js";
import { sha256 } from "../dist/sha256.js";
import { Backend } from "./model.js";

export const ORIGIN = "https://shop.example";
const NEVER = new Promise(() => {});

/** Numbers below 1 that the seed decides: mulberry32. */
export const random = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};

/** Time, the backend, and the network to it. */
export class World {
  #now = 1_800_000_000_000;
  #timers = [];
  /** What happens to a request: `{ before, after }`, each milliseconds, or "drop". */
  trouble = () => ({ before: 5, after: 5 });
  backend = new Backend(() => this.#now);

  constructor(seed = 1) {
    this.random = random(seed);
  }

  sleep(milliseconds) {
    return new Promise((wake) => this.#timers.push({ at: this.#now + milliseconds, wake }));
  }

  /** Lets time pass until this is done. */
  async until(work) {
    let settled = false;
    const done = Promise.resolve(work).finally(() => (settled = true));
    done.catch(() => {});
    for (;;) {
      // Bodies of requests and answers are streams, which take their turns.
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
      if (settled) return done;
      this.#timers.sort((a, b) => a.at - b.at);
      const next = this.#timers.shift();
      if (!next) throw new Error("nothing happens any more");
      this.#now = Math.max(this.#now, next.at);
      next.wake();
    }
  }

  /** Until access tokens have expired. */
  expired() {
    return this.until(this.sleep(this.backend.lifetime + 1));
  }
}

/** One browser's profile: what its tabs share. */
export class Browser {
  jar = new Map();
  memory = empty();
  tabs = [];
  /** How many requests left, by path. */
  counts = new Map();
  /** Whether storage works, and whether there are Web Locks. */
  stores = true;
  locks = true;
  #holder;
  #waiting = [];

  constructor(world) {
    this.world = world;
  }

  /** A new tab; its client, with what it was told in `events`. */
  open(settings = {}) {
    const tab = { isDead: false, listeners: [] };
    const client = new Session({ origins: [ORIGIN], base: "/auth", mode: "cookie", ...settings }, this.#environment(tab));
    const events = [];
    for (const type of ["created", "refreshed", "signedOut", "expired", "theft", "offline", "failed"]) {
      client.on(type, (event) => events.push(event));
    }
    Object.assign(tab, { client, events, kinds: () => events.map(({ type }) => type) });
    this.tabs.push(tab);
    return tab;
  }

  /** Nothing of the tab happens any more. Cookies of answers under way still arrive. */
  kill(tab) {
    tab.isDead = true;
    this.tabs = this.tabs.filter((each) => each !== tab);
    if (this.#holder === tab) this.#release();
  }

  /** Another one with the same cookies, and the same storage or none. */
  copy({ memory = true } = {}) {
    const twin = new Browser(this.world);
    twin.jar = new Map(this.jar);
    if (memory) twin.memory = structuredClone(this.memory);
    return twin;
  }

  #environment(tab) {
    const { world } = this;
    const alive = async (work) => {
      const result = await work;
      return tab.isDead ? NEVER : result;
    };
    return {
      fetch: (input, init) => this.#fetch(tab, new Request(input, init)),
      origin: ORIGIN,
      resolve: (url) => new URL(url, ORIGIN).href,
      random: (bytes) => new Uint8Array(bytes).map(() => Math.floor(world.random() * 256)),
      hash: async (bytes) => sha256(bytes),
      sleep: (milliseconds) => alive(world.sleep(milliseconds)),
      storage: {
        read: () => alive(this.#transact(tab, (memory) => structuredClone(memory))),
        update: (change) => alive(this.#transact(tab, change)),
      },
      exclusively: (work) => (this.locks ? this.#exclusively(tab, work) : work()),
      marker: async () => this.jar.get("marker") ?? null,
      post: (message) => {
        const others = this.tabs.filter((each) => each !== tab);
        void world.sleep(1).then(() => others.forEach((other) => other.listeners.forEach((heard) => heard(structuredClone(message)))));
      },
      listen: (heard) => tab.listeners.push(heard),
    };
  }

  async #transact(tab, change) {
    if (!this.stores) throw new Error("there is no storage");
    await this.world.sleep(1 + Math.floor(this.world.random() * 3));
    if (tab.isDead) return NEVER;
    const memory = structuredClone(this.memory);
    const result = change(memory);
    this.memory = memory;
    return result;
  }

  async #exclusively(tab, work) {
    if (this.#holder) await new Promise((resolve) => this.#waiting.push({ tab, resolve }));
    this.#holder = tab;
    try {
      return await work();
    } finally {
      this.#release();
    }
  }

  #release() {
    this.#holder = undefined;
    const next = this.#waiting.shift();
    if (!next) return;
    if (next.tab.isDead) return this.#release();
    this.#holder = next.tab;
    next.resolve();
  }

  async #fetch(tab, request) {
    const { world } = this;
    const { pathname: path } = new URL(request.url);
    this.counts.set(path, (this.counts.get(path) ?? 0) + 1);
    const { before, after } = world.trouble(path);
    const failed = async () => {
      await world.sleep(20);
      if (tab.isDead) return NEVER;
      throw new TypeError("fetch failed");
    };
    // The cookies are those of the moment in which the request leaves.
    await world.sleep(1);
    if (tab.isDead) return NEVER;
    const cookies = new Map(request.credentials === "omit" ? [] : this.jar);
    const text = await request.text();
    if (before === "drop") return failed();
    await world.sleep(before);
    const served = world.backend.serve({ path, headers: request.headers, cookies, text });
    if (after === "drop") return failed();
    await world.sleep(after === "cut" ? 5 : after);
    for (const [name, value] of served.cookies ?? []) value ? this.jar.set(name, value) : this.jar.delete(name);
    if (after === "cut") return failed();
    if (tab.isDead) return NEVER;
    request.signal.throwIfAborted();
    const type = served.problem ? "application/problem+json" : "application/json";
    const headers = { ...served.headers, ...(served.body && { "content-type": type }) };
    return new Response(served.body && JSON.stringify(served.body), { status: served.status, headers });
  }
}

/** A browser with tabs, the first of which has logged in as this user. */
export async function loggedIn(world, { tabs = 1, user = "alice", settings, ...more } = {}) {
  const browser = Object.assign(new Browser(world), more);
  for (let tab = 0; tab < tabs; tab++) browser.open(settings);
  const login = await world.until(browser.tabs[0].client.fetch("/login", { method: "POST", headers: { user } }));
  if (login.status !== 200) throw new Error(`login answered ${login.status}`);
  await world.until(world.sleep(10));
  return browser;
}

/** Trouble at random: a quarter of the requests is late or lost, and a quarter of the answers, with or without their cookies. */
export const trouble = (world) => () => {
  const one = (end) => {
    const what = world.random();
    if (what < 0.1) return end();
    return what < 0.25 ? world.random() * 8000 : world.random() * 30;
  };
  return { before: one(() => "drop"), after: one(() => (world.random() < 0.5 ? "drop" : "cut")) };
};

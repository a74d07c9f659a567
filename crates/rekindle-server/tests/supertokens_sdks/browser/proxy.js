// A proxy that delays and drops requests and answers, and has a few pages of its own.

"use strict";

const { once } = require("node:events");
const http = require("node:http");
const { buffer } = require("node:stream/consumers");
const { setTimeout: sleep } = require("node:timers/promises");

exports.Proxy = class {
  /** What happens to the next request: `{ before, after }`, each milliseconds of delay, or "drop". */
  trouble = () => ({});
  /** How many requests came, by path. */
  counts = new Map();
  #server = http.createServer((req, res) => this.#serve(req, res).catch(() => res.destroy()));
  #target;
  #pages;

  /** `pages`: content type and content by path. */
  static async start(target, pages = {}) {
    const proxy = new this();
    proxy.#target = target;
    proxy.#pages = pages;
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** `http://localhost:<port>`: browsers treat this name as secure. */
  get address() {
    return `http://localhost:${this.#server.address().port}`;
  }

  stop() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #serve(req, res) {
    const [path] = req.url.split("?");
    if (this.#pages[path]) {
      const [type, content] = this.#pages[path];
      return res.writeHead(200, { "content-type": type }).end(content);
    }
    this.counts.set(path, (this.counts.get(path) ?? 0) + 1);
    const { before = 0, after = 0 } = this.trouble();
    const body = await buffer(req);
    if (before === "drop") return res.destroy();
    await sleep(before);
    const forwarded = http.request(this.#target + req.url, { method: req.method, headers: req.headers, agent: false });
    forwarded.end(body);
    const [answer] = await once(forwarded, "response");
    const content = await buffer(answer);
    if (after === "drop") return res.destroy();
    await sleep(after);
    res.writeHead(answer.statusCode, answer.rawHeaders).end(content);
  }
};

/** Trouble at random: a fifth of the requests is late or lost, and a fifth of the answers. */
exports.trouble = (random) => {
  const one = () => {
    const what = random();
    if (what < 0.08) return "drop";
    return what < 0.2 ? random() * 300 : 0;
  };
  return () => ({ before: one(), after: one() });
};

/** Numbers below 1 that the seed decides: mulberry32. */
exports.random = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};

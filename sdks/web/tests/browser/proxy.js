// A proxy that delays, drops and cuts, and has a few pages of its own.

import { EventEmitter, once } from "node:events";
import http from "node:http";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";

export class Proxy {
  /**
   * What happens to a request to this path: `{ before, after }`, each milliseconds of delay, or "drop"; `after` may be "cut", too: the
   * answer's head with its cookies comes, and the connection ends within the body.
   */
  trouble = () => ({});
  /** How many requests came, by path. */
  counts = new Map();
  #happens = new EventEmitter();
  #server = http.createServer((request, response) => this.#serve(request, response).catch(() => response.destroy()));
  #target;
  #pages;

  /** `pages`: headers and content by path. */
  static async start(target, pages) {
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

  /** When the next request to this path has come. */
  came(path) {
    return once(this.#happens, `came ${path}`);
  }

  /** When the backend has answered the next request to this path. */
  answered(path) {
    return once(this.#happens, `answered ${path}`);
  }

  stop() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #serve(request, response) {
    const [path] = request.url.split("?");
    if (this.#pages[path]) {
      const { headers, content } = this.#pages[path];
      return response.writeHead(200, headers).end(content);
    }
    this.counts.set(path, (this.counts.get(path) ?? 0) + 1);
    const { before = 0, after = 0 } = this.trouble(path);
    const body = await buffer(request);
    this.#happens.emit(`came ${path}`);
    if (before === "drop") return response.destroy();
    await sleep(before);
    const forwarded = http.request(this.#target + request.url, { method: request.method, headers: request.headers, agent: false });
    forwarded.end(body);
    const [answer] = await once(forwarded, "response");
    const content = await buffer(answer);
    this.#happens.emit(`answered ${path}`);
    // No script sees the headers of a redirect: to a login in header mode, applications do not answer with one.
    if (request.headers["rekindle-mode"] === "header" && answer.statusCode === 303) answer.statusCode = 200;
    if (after === "drop") return response.destroy();
    if (after !== "cut") {
      await sleep(after);
      return response.writeHead(answer.statusCode, answer.rawHeaders).end(content);
    }
    // One byte more is announced than comes.
    const headers = answer.rawHeaders.flatMap((value, i, all) => {
      const isAbout = (name) => all[i & ~1].toLowerCase() === name;
      if (isAbout("transfer-encoding")) return [];
      return isAbout("content-length") && i % 2 ? [String(content.length + 1)] : [value];
    });
    response.writeHead(answer.statusCode, headers);
    response.write(content);
    await sleep(20);
    response.destroy();
  }
}

/** Trouble at random: a fifth of the requests is late or lost, and a quarter of the answers, some of them with their cookies. */
export const trouble = (random) => () => {
  const late = () => (random() < 0.12 ? random() * 300 : 0);
  const lost = random();
  return { before: lost < 0.08 ? "drop" : late(), after: lost > 0.92 ? "drop" : lost > 0.84 ? "cut" : late() };
};

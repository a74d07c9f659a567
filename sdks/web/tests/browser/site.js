// A site: an example backend, and before it a proxy with the pages that use it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import esbuild from "esbuild";

import { Proxy } from "./proxy.js";

/** No script but the site's own files, nothing inline, no eval. */
const POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; worker-src 'self'; img-src data:; base-uri 'none'";

const bundle = (name) => {
  const entryPoints = [new URL(name, import.meta.url).pathname];
  const { outputFiles } = esbuild.buildSync({ entryPoints, bundle: true, write: false, format: "iife", platform: "browser" });
  return outputFiles[0].text;
};

const page = (type, content) => ({ headers: { "content-type": type, "content-security-policy": POLICY }, content });

const HTML = '<!doctype html><title>app</title><link rel="icon" href="data:,"><script src="/page.js"></script>';

export class Site {
  #backend;

  /** Starts the program, which lives behind `proxy.address` then; its access tokens live so many seconds. */
  static async start(accessTokens) {
    const site = new this();
    site.lifetime = accessTokens;
    const backend = spawn(process.env.REKINDLE_BACKEND, {
      env: { PORT: "0", DEFINITION: JSON.stringify({ access_token: { lifetime: accessTokens } }) },
      stdio: ["ignore", "pipe", "pipe"],
    });
    site.#backend = backend;
    // Shown if it ends: frameworks write a line for every request that they refuse.
    let said = "";
    backend.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-20_000)));
    const address = await new Promise((resolve, reject) => {
      createInterface(backend.stdout).on("line", (line) => {
        const [, address] = /^Listening on (http:\S+)/i.exec(line) ?? [];
        if (address) resolve(address);
      });
      backend.on("error", reject);
      backend.on("exit", (code) => reject(new Error(`the backend ended with ${code}: ${said}`)));
    });
    site.proxy = await Proxy.start(address, {
      "/app": page("text/html", HTML),
      "/elsewhere": page("text/html", "<!doctype html><title>elsewhere</title>"),
      "/outer": { headers: { "content-type": "text/html" }, content: "<!doctype html><title>outer</title>" },
      "/page.js": page("text/javascript", bundle("page.js")),
      "/worker.js": page("text/javascript", bundle("worker.js")),
    });
    return site;
  }

  /** Waits until every access token of now has expired. */
  async expire() {
    await sleep(this.lifetime * 1000 + 200);
  }

  async stop() {
    this.proxy?.stop();
    const ended = once(this.#backend, "exit");
    if (this.#backend.kill("SIGKILL")) await ended;
  }
}

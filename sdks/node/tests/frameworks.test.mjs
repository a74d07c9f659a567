// The same application on each framework.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { serve } from "@hono/node-server";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import Koa from "koa";
import { Rekindle } from "rekindle";
import { WebSocket } from "ws";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-node-"));
const rekindle = await Rekindle.embedded({ dataDir: path.join(folder, "data"), development: true });
const web = rekindle.web({ development: true, origins: ["http://localhost:5173"] });
after(() => fs.rmSync(folder, { recursive: true }));

const listening = (server) => new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));

const onExpress = () => {
  const app = express().use(web.express());
  app.post("/login", async (req, res) => {
    await web.signIn(req, res, { userId: req.query.user });
    res.json({});
  });
  app.get("/me", web.required(), (req, res) => res.json({ user: req.session.userId }));
  app.get("/rendered", web.required({ mint: true }), (req, res) => res.json({ user: req.session.userId }));
  app.get("/open", (req, res) => res.json({}));
  app.get("/maybe", async (req, res) => res.json({ user: (await web.sessionIfAny(req))?.userId ?? null }));
  app.post("/logout", web.required(), async (req, res) => {
    await req.session.signOut(res);
    res.json({});
  });
  return listening(http.createServer(app.use(web.errors())));
};

const onFastify = async () => {
  const app = fastify();
  await app.register(web.fastify());
  app.post("/login", async ({ rekindle, query }) => {
    await rekindle.signIn({ userId: query.user });
    return {};
  });
  app.get("/me", async ({ rekindle }) => ({ user: (await rekindle.session()).userId }));
  app.get("/rendered", async ({ rekindle }) => ({ user: (await rekindle.session({ mint: true })).userId }));
  app.get("/open", async () => ({}));
  app.get("/maybe", async ({ rekindle }) => ({ user: (await rekindle.sessionIfAny())?.userId ?? null }));
  app.post("/logout", async ({ rekindle }) => {
    await (await rekindle.session()).signOut();
    return {};
  });
  await app.listen({ port: 0, host: "127.0.0.1" });
  return app.server;
};

const onKoa = () => {
  const app = new Koa();
  app.use(web.koa());
  app.use(async (ctx) => {
    const visit = ctx.state.rekindle;
    if (ctx.path === "/login") await visit.signIn({ userId: ctx.query.user });
    else if (ctx.path === "/logout") await (await visit.session()).signOut();
    else if (ctx.path === "/open") return (ctx.body = {});
    else if (ctx.path === "/maybe") return (ctx.body = { user: (await visit.sessionIfAny())?.userId ?? null });
    else return (ctx.body = { user: (await visit.session({ mint: ctx.path === "/rendered" })).userId });
    ctx.body = {};
  });
  return listening(http.createServer(app.callback()));
};

const onHono = () => {
  const app = new Hono();
  app.use(web.hono());
  app.post("/login", async (c) => {
    await c.get("rekindle").signIn({ userId: c.req.query("user") });
    return c.json({});
  });
  app.get("/me", async (c) => c.json({ user: (await c.get("rekindle").session()).userId }));
  app.get("/rendered", async (c) => c.json({ user: (await c.get("rekindle").session({ mint: true })).userId }));
  app.get("/open", async (c) => c.json({}));
  app.get("/maybe", async (c) => c.json({ user: (await c.get("rekindle").sessionIfAny())?.userId ?? null }));
  app.post("/logout", async (c) => {
    await (await c.get("rekindle").session()).signOut();
    return c.json({});
  });
  return new Promise((resolve) => {
    const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }, () => resolve(server));
  });
};

/** Handlers of `Request`s, as Next.js routes are. */
const onRequests = () => {
  const handle = web.handler(async (request, visit) => {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/login") await visit.signIn({ userId: searchParams.get("user") });
    else if (pathname === "/logout") await (await visit.session()).signOut();
    else if (pathname === "/open") return Response.json({});
    else if (pathname === "/maybe") return Response.json({ user: (await visit.sessionIfAny())?.userId ?? null });
    else return Response.json({ user: (await visit.session({ mint: pathname === "/rendered" })).userId });
    return Response.json({});
  });
  return new Promise((resolve) => {
    const server = serve({ fetch: (request) => handle(request), port: 0, hostname: "127.0.0.1" }, () => resolve(server));
  });
};

/** A browser's share in cookies and headers. */
class Browser {
  #base;
  cookies = new Map();

  constructor(server) {
    this.#base = `http://localhost:${server.address().port}`;
  }

  async ask(method, path, { headers: more = {}, body } = {}) {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const sent = { "sec-fetch-site": "same-origin", ...(cookie && { cookie }), ...more };
    // Not `fetch`, which says of itself where its requests come from.
    const request = http.request(this.#base + path, { method, headers: sent });
    request.end(body);
    const [answer] = await once(request, "response");
    for (const line of answer.headers["set-cookie"] ?? []) {
      const [pair, ...attributes] = line.split("; ");
      const [name, value] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
      if (attributes.includes("Max-Age=0")) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    const content = await text(answer);
    const json = answer.headers["content-type"]?.includes("json");
    const headers = new Headers(Object.entries(answer.headers).map(([name, value]) => [name, String(value)]));
    return { status: answer.statusCode, headers, body: json ? JSON.parse(content) : content };
  }

  refresh() {
    return this.ask("POST", "/auth/session/refresh", { headers: { "rekindle-request": "1" } });
  }
}

for (const [name, start] of Object.entries({ Express: onExpress, Fastify: onFastify, Koa: onKoa, Hono: onHono, "Request and Response": onRequests })) {
  describe(name, () => {
    let server;
    before(async () => (server = await start()));
    after(() => {
      server?.close();
      server?.closeAllConnections?.();
    });

    it("signs in, serves, refreshes and signs out", async () => {
      const browser = new Browser(server);
      assert.deepEqual((await browser.ask("GET", "/maybe")).body, { user: null });
      const login = await browser.ask("POST", "/login?user=alice");
      assert.equal(login.status, 200, JSON.stringify(login.body));
      assert.deepEqual([...browser.cookies.keys()].sort(), ["rekindle-access", "rekindle-refresh", "rekindle-session"]);
      const me = await browser.ask("GET", "/me");
      assert.deepEqual([me.status, me.body], [200, { user: "alice" }]);
      assert.equal(me.headers.get("cache-control"), "private, no-store");
      assert.match(me.headers.get("vary"), /cookie, authorization/i);

      const before = browser.cookies.get("rekindle-refresh");
      const refreshed = await browser.refresh();
      assert.deepEqual([refreshed.status, refreshed.body.generation, refreshed.body.user_id], [200, 1, "alice"]);
      assert.notEqual(browser.cookies.get("rekindle-refresh"), before);
      assert.deepEqual((await browser.ask("GET", "/me")).body, { user: "alice" });

      assert.equal((await browser.ask("POST", "/logout")).status, 200);
      assert.equal(browser.cookies.size, 0);
      const out = await browser.ask("GET", "/me");
      assert.deepEqual([out.status, out.body.code], [401, "token_malformed"]);
    });

    it("refuses other sites' pages, and lets the scripts of listed origins read", async () => {
      const browser = new Browser(server);
      await browser.ask("POST", "/login?user=bob");
      const foreign = { headers: { "sec-fetch-site": "cross-site", origin: "https://evil.example" } };
      const forged = await browser.ask("POST", "/logout", foreign);
      assert.deepEqual([forged.status, forged.body.code], [403, "csrf_failed"]);
      assert.equal((await new Browser(server).ask("POST", "/login?user=eve", foreign)).status, 403);
      const withoutHeader = await browser.ask("POST", "/auth/session/refresh");
      assert.deepEqual([withoutHeader.status, withoutHeader.body.code], [403, "csrf_failed"]);

      const origin = "http://localhost:5173";
      const listed = await browser.ask("GET", "/me", { headers: { origin, "sec-fetch-site": "same-site" } });
      assert.equal(listed.headers.get("access-control-allow-origin"), origin);
      const preflight = await browser.ask("OPTIONS", "/me", { headers: { origin, "access-control-request-method": "PATCH" } });
      assert.deepEqual([preflight.status, preflight.headers.get("access-control-allow-origin")], [204, origin]);
    });

    it("takes and gives tokens in headers", async () => {
      const app = new Browser(server);
      const login = await app.ask("POST", "/login?user=carol", { headers: { "rekindle-mode": "header" } });
      assert.equal(app.cookies.size, 0);
      const [access, refresh] = ["rekindle-access-token", "rekindle-refresh-token"].map((name) => login.headers.get(name));
      const bearer = (token) => ({ headers: { "rekindle-mode": "header", authorization: `Bearer ${token}` } });
      assert.deepEqual((await app.ask("GET", "/me", bearer(access))).body, { user: "carol" });
      const refreshed = await app.ask("POST", "/auth/session/refresh", bearer(refresh));
      assert.equal(refreshed.status, 200);
      assert.ok(refreshed.headers.get("rekindle-refresh-token").startsWith("rkr_"));
    });

    it("answers a page request without an access token with the page that refreshes, or renders it", async () => {
      const browser = new Browser(server);
      await browser.ask("POST", "/login?user=dave");
      browser.cookies.delete("rekindle-access");
      const page = await browser.ask("GET", "/me", { headers: { accept: "text/html", "sec-fetch-mode": "navigate" } });
      assert.equal(page.status, 401);
      assert.match(page.body, /<script src="\/auth\/session\/refresh.js"/);
      const script = await browser.ask("GET", "/auth/session/refresh.js");
      assert.match(script.headers.get("content-type"), /javascript/);
      assert.deepEqual((await browser.ask("GET", "/rendered")).body, { user: "dave" });
    });

    it("answers each request by itself, although the one before had the same headers", async () => {
      const browser = new Browser(server);
      await browser.ask("POST", "/login?user=frank");
      const list = await browser.ask("GET", "/auth/session/list");
      const { id } = list.body.items.find(({ current }) => current);
      for (let turn = 0; turn < 3; turn++) {
        const me = await browser.ask("GET", "/me");
        assert.deepEqual([me.body, me.headers.get("cache-control")], [{ user: "frank" }, "private, no-store"]);
        // Who asks for no session may be answered from a cache.
        const open = await browser.ask("GET", "/open");
        assert.deepEqual([open.status, open.headers.get("cache-control")], [200, null]);
      }
      const foreign = { headers: { "sec-fetch-site": "cross-site", origin: "https://evil.example" } };
      assert.equal((await browser.ask("POST", "/logout", foreign)).status, 403);
      await rekindle.revoke(id);
      const over = await browser.ask("GET", "/me");
      assert.deepEqual([over.status, over.body.code], [401, "session_revoked"]);
    });

    it("lists and revokes the user's own sessions", async () => {
      const [phone, desk] = [new Browser(server), new Browser(server)];
      for (const browser of [phone, desk]) await browser.ask("POST", `/login?user=erin-of-${encodeURIComponent(name)}`);
      const { body } = await desk.ask("GET", "/auth/session/list");
      assert.deepEqual(body.items.map(({ current }) => current).sort(), [false, true]);
      const other = body.items.find(({ current }) => !current).id;
      const json = { "content-type": "application/json" };
      const revoked = await desk.ask("POST", "/auth/session/revoke", { headers: json, body: JSON.stringify({ session_id: other }) });
      assert.deepEqual([revoked.status, revoked.body], [200, { revoked: 1 }]);
      assert.equal((await phone.refresh()).status, 401);
      const large = await desk.ask("POST", "/auth/session/revoke", { headers: json, body: "x".repeat(3000) });
      assert.equal(large.status, 413);
    });
  });
}

/** Runs an example before the tests of a suite; its server. */
const example = (name, env) => {
  const running = { address: () => ({ port: running.port }) };
  let program;
  before(async () => {
    const file = fileURLToPath(new URL(`../examples/${name}/server.mjs`, import.meta.url));
    program = spawn(process.execPath, [file], { env: { ...process.env, PORT: "0", DATA: path.join(folder, name), ...env } });
    for await (const line of createInterface(program.stdout)) {
      running.port = /^Listening on http:\/\/localhost:(\d+)/.exec(line)?.[1];
      if (running.port) break;
    }
  });
  after(async () => {
    if (program?.kill("SIGKILL")) await once(program, "exit");
  });
  return running;
};

const form = (fields) => ({ headers: { "content-type": "application/x-www-form-urlencoded" }, body: String(new URLSearchParams(fields)) });

describe("the WebSockets of the example on Express", () => {
  const server = example("express", {});
  const signedIn = async (user) => {
    const browser = new Browser(server);
    assert.equal((await browser.ask("POST", "/login", form({ user }))).status, 303);
    return browser;
  };
  const connect = ({ cookies }, from = { "sec-fetch-site": "same-origin" }) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    return new WebSocket(`ws://localhost:${server.address().port}`, { headers: { ...from, cookie } });
  };
  const opened = async (browser) => {
    const socket = connect(browser);
    const [said] = await once(socket, "message");
    return { socket, said: String(said), closed: once(socket, "close") };
  };
  const refused = async (socket) => {
    const [, answer] = await once(socket, "unexpected-response");
    socket.on("error", () => {});
    socket.terminate();
    return answer.statusCode;
  };

  it("close when the session ends, here or elsewhere, and only those of that session", async () => {
    const [phone, desk, other] = [await signedIn("alice"), await signedIn("alice"), await signedIn("bob")];
    const [first, second, third] = [await opened(phone), await opened(desk), await opened(other)];
    assert.deepEqual([first.said, third.said], ["Hello, alice.", "Hello, bob."]);
    assert.equal((await phone.ask("POST", "/logout")).status, 303);
    assert.equal((await first.closed)[0], 4401);
    assert.equal(second.socket.readyState, WebSocket.OPEN);
    const again = await signedIn("alice");
    const { items } = (await again.ask("GET", "/auth/session/list")).body;
    const theirs = items.find(({ current }) => !current).id;
    const json = { "content-type": "application/json" };
    assert.equal((await again.ask("POST", "/auth/session/revoke", { headers: json, body: JSON.stringify({ session_id: theirs }) })).status, 200);
    assert.equal((await second.closed)[0], 4401);
    assert.equal(third.socket.readyState, WebSocket.OPEN);
    third.socket.close();
    assert.equal(await refused(connect(phone)), 401);
  });

  it("are not for other sites' pages, nor for those who are not signed in", async () => {
    const browser = await signedIn("carol");
    assert.equal(await refused(connect(browser, { "sec-fetch-site": "cross-site", origin: "https://evil.example" })), 403);
    // An older browser tells only the origin.
    assert.equal(await refused(connect(browser, { origin: "https://evil.example" })), 403);
    assert.equal(await refused(connect(new Browser(server))), 401);
  });
});

describe("the example of rendering", () => {
  const server = example("rendering", { DEFINITION: '{"access_token":{"lifetime":1}}' });

  it("renders for a visitor whose access token has expired, and rotates nothing", async () => {
    const browser = new Browser(server);
    assert.match((await browser.ask("GET", "/")).body, /Sign in/);
    assert.equal((await browser.ask("POST", "/login", form({ user: "alice" }))).status, 303);
    const json = { "content-type": "application/json" };
    assert.deepEqual((await browser.ask("POST", "/cart", { headers: json, body: '"socks"' })).body, ["socks"]);
    await sleep(1100);
    const before = new Map(browser.cookies);
    for (let turn = 0; turn < 3; turn++) {
      const page = await browser.ask("GET", "/", { headers: { accept: "text/html", "sec-fetch-mode": "navigate" } });
      assert.match(page.body, /<p id=user>alice<\/p><p id=cart>1 in your cart/);
    }
    assert.deepEqual(browser.cookies, before);
    const late = await browser.ask("POST", "/cart", { headers: json, body: '"shoes"' });
    assert.deepEqual([late.status, late.body.code], [401, "access_token_expired"]);
    assert.equal((await browser.refresh()).status, 200);
    assert.deepEqual((await browser.ask("POST", "/cart", { headers: json, body: '"shoes"' })).body, ["socks", "shoes"]);
    assert.equal((await browser.ask("GET", "/nowhere")).status, 404);
  });
});

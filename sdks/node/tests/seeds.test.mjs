// The code of documents that describe earlier session libraries, translated in package and configuration names alone.

import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";

import express from "express";
import { Rekindle } from "rekindle";
import * as ExpressSessions from "rekindle/express";
import * as Sessions from "rekindle/functions";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-node-"));
after(() => fs.rmSync(folder, { recursive: true }));
before(() =>
  Sessions.init({
    dataDir: path.join(folder, "data"),
    development: true,
    cookie: { domain: "example.com" },
    web: { development: true, csrfKey: Buffer.alloc(32, 7) },
  }),
);

describe("sessions with a product, an environment and a tag", () => {
  it("generates session tokens, and refreshes them", async () => {
    const ductape = { processor: await Rekindle.embedded({ dataDir: path.join(folder, "data"), development: true, product: "my-product-tag", env: "snd" }) };
    const definition = { tag: "session-tag", selector: "$Session{userId}", schema: { userId: "1919102009383", details: { username: "u", email: "e" } } };
    await ductape.processor.define(definition);

    const data = {
      userId: "1919102009383",
      details: {
        username: "feekayo",
        email: "fikayo@ductape.app",
      },
    };

    const started = await ductape.processor.sessions.start({
      product: "my-product-tag",
      env: "snd",
      tag: "session-tag",
      data,
    });
    assert.match(started.token, /^session-tag:/);
    assert.match(started.refreshToken, /:/);
    assert.deepEqual(await ductape.processor.sessions.decrypt({ product: "my-product-tag", env: "snd", tag: "session-tag", token: started.token }), data);

    const refreshPayload = {
      product: "my-product-tag",
      env: "snd",
      tag: "session-tag",
      refreshToken: started.refreshToken,
    };

    const result = await ductape.processor.sessions.refresh(refreshPayload);
    assert.notEqual(result.refreshToken, started.refreshToken);
    assert.equal((await ductape.processor.read(started.sessionId)).userId, "1919102009383");
  });
});

describe("sessions by functions of tokens", () => {
  /** A jar of cookies, as the documents' helpers set and clear it. */
  const jar = new Map();
  const headers = new Map();
  const getCookieValue = (key) => jar.get(key);
  const setCookie = (key, value, domain, secure, httpOnly, expires, path) => {
    assert.ok(typeof value === "string" && domain === "example.com" && secure === true, key);
    assert.ok(expires > new Date() && path.startsWith("/"), key);
    jar.set(key, value);
  };
  const setHeader = (key, value) => headers.set(key, value);
  const clearAuthCookies = () => jar.clear();
  let replied;

  // Should be a POST API
  function refreshSessionAPI() {
    let refreshToken = getCookieValue("sRefreshToken");
    if (refreshToken === undefined) {
      clearAuthCookies();
      replied = "login";
      return;
    }
    return Sessions.refreshSession(refreshToken).then((session) => {
      let accessToken = session.newAccessToken;
      setCookie("sAccessToken", accessToken.value, "example.com", true, true, new Date(accessToken.expires), "/");

      let refreshToken = session.newRefreshToken;
      setCookie("sRefreshToken", refreshToken.value, "example.com", true, true, new Date(refreshToken.expires), "/refreshsession");

      let idRefreshToken = session.newIdRefreshToken;
      setCookie("sIdRefreshToken", idRefreshToken.value, "example.com", true, false, new Date(idRefreshToken.expires), "/");

      let antiCsrfToken = session.newAntiCsrfToken;
      setHeader("anti-csrf", antiCsrfToken);

      replied = "success";
    }).catch((err) => {
      if (Sessions.Error.isErrorFromAuth(err)) {
        if (err.errType === Sessions.Error.GENERAL_ERROR) {
          replied = 500;
        } else if (err.errType === Sessions.Error.UNAUTHORISED) {
          clearAuthCookies();
          replied = "login";
        } else { // UNAUTHORISED_AND_TOKEN_THEFT_DETECTED
          clearAuthCookies();
          let userId = err.err.userId;
          let sessionHandle = err.err.sessionHandle;
          replied = { userId, sessionHandle };
        }
      } else {
        replied = 500;
      }
    });
  }

  it("refreshes, sees theft, and clears", async () => {
    await refreshSessionAPI();
    assert.equal(replied, "login");
    const created = await Sessions.createNewSession("alice", { role: "author" }, { cart: [] });
    assert.deepEqual(created.session, { handle: created.session.handle, userId: "alice", userDataInJWT: { role: "author" }, jwtPayload: { role: "author" } });
    jar.set("sRefreshToken", created.refreshToken.token);
    await refreshSessionAPI();
    assert.equal(replied, "success");
    const { session } = await Sessions.getSession(jar.get("sAccessToken"), headers.get("anti-csrf"));
    assert.equal(session.handle, created.session.handle);
    const wrong = (errType) => (error) => Sessions.Error.isErrorFromAuth(error) && error.errType === errType;
    await assert.rejects(Sessions.getSession(jar.get("sAccessToken"), "wrong"), wrong(Sessions.Error.TRY_REFRESH_TOKEN));
    await assert.rejects(Sessions.getSession(jar.get("sAccessToken"), undefined), wrong(Sessions.Error.GENERAL_ERROR));
    await assert.rejects(Sessions.getSession("forged", null), wrong(Sessions.Error.TRY_REFRESH_TOKEN));
    await refreshSessionAPI();

    jar.set("sRefreshToken", created.refreshToken.token);
    await refreshSessionAPI();
    assert.deepEqual(replied, { userId: "alice", sessionHandle: created.session.handle });
    assert.equal(jar.size, 0);
    jar.set("sRefreshToken", created.newRefreshToken.value);
    await refreshSessionAPI();
    assert.equal(replied, "login");
  });

  it("keeps data, lists and revokes", async () => {
    const { session: { handle } } = await Sessions.createNewSession(7, {}, { cart: [1], note: "x" });
    assert.deepEqual(await Sessions.getSessionData(handle), { cart: [1], note: "x" });
    await Sessions.updateSessionInfo(handle, { cart: [2] });
    assert.deepEqual(await Sessions.getSessionInfo(handle), { cart: [2] });
    assert.deepEqual(await Sessions.getAllSessionHandlesForUser(7), [handle]);
    assert.equal(await Sessions.revokeSessionUsingSessionHandle(handle), true);
    assert.equal(await Sessions.revokeSessionUsingSessionHandle(handle), false);
    assert.equal(await Sessions.revokeSessionUsingSessionHandle("unknown"), false);
    await assert.rejects(Sessions.getSessionInfo(handle), (error) => error.errType === Sessions.Error.UNAUTHORISED);
    await Sessions.createNewSession("7");
    assert.equal(await Sessions.revokeAllSessionsForUser("7"), 1);
    await assert.rejects(Sessions.createNewSession({}), (error) => error.errType === Sessions.Error.GENERAL_ERROR);
  });
});

describe("sessions by functions of requests and responses", () => {
  let server;
  before(async () => {
    const { Error, createNewSession, getSession, refreshSession } = ExpressSessions;
    const app = express();
    app.post("/login", async (req, res) => {
      const session = await createNewSession(res, "bob", { role: "reader" }, { cart: [] });
      res.json({ handle: session.getHandle() });
    });
    app.get("/getHomeFeed", async (req, res) => {
      const session = await getSession(req, res, false);
      res.json({ userId: session.getUserId(), payload: session.getJWTPayload(), data: await session.getSessionData() });
    });
    app.post("/refresh", async (req, res) => {
      const session = await refreshSession(req, res);
      res.json({ userId: session.getUserId() });
    });
    app.post("/logout", async (req, res) => {
      await (await getSession(req, res, true)).revokeSession();
      res.json({});
    });
    app.options("/getHomeFeed", (req, res) => {
      ExpressSessions.setRelevantHeadersForOptionsAPI(res);
      res.end();
    });
    app.use((error, req, res, next) => {
      if (!Error.isErrorFromAuth(error)) return next(error);
      const { errType, err } = error;
      res.status(errType === Error.GENERAL_ERROR ? 500 : 440).json({ errType, userId: err.userId, sessionHandle: err.sessionHandle });
    });
    server = http.createServer(app).listen(0, "127.0.0.1");
    await once(server, "listening");
  });
  after(() => server.close());

  it("signs in, calls, refreshes, sees theft, and takes the cookies back", async () => {
    const jar = new Map();
    let csrf;
    const ask = async (method, path, cookies = jar) => {
      const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
      const headers = { cookie, origin: `http://localhost:${server.address().port}`, "rekindle-request": "1", ...(csrf && { "anti-csrf": csrf }) };
      const answer = await fetch(`http://localhost:${server.address().port}${path}`, { method, headers });
      csrf = answer.headers.get("anti-csrf") ?? csrf;
      for (const line of answer.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        if (line.includes("Max-Age=0")) jar.delete(name);
        else jar.set(name, value);
      }
      return { status: answer.status, headers: answer.headers, body: answer.headers.get("content-type")?.includes("json") ? await answer.json() : undefined };
    };
    const { body: { handle } } = await ask("POST", "/login");
    assert.equal(jar.size, 3);
    assert.deepEqual((await ask("GET", "/getHomeFeed")).body, { userId: "bob", payload: { role: "reader" }, data: { cart: [] } });
    const stolen = new Map(jar);
    for (let round = 0; round < 2; round++) {
      const refreshed = await ask("POST", "/refresh");
      assert.deepEqual([refreshed.status, refreshed.body], [200, { userId: "bob" }]);
    }
    const theft = await ask("POST", "/refresh", stolen);
    assert.deepEqual([theft.status, theft.body], [440, { errType: 4000, userId: "bob", sessionHandle: handle }]);
    const over = await ask("POST", "/refresh");
    assert.deepEqual([over.status, over.body.errType, jar.size], [440, 2000, 0]);

    await ask("POST", "/login");
    jar.delete("rekindle-access");
    assert.deepEqual((await ask("GET", "/getHomeFeed")).body.errType, 3000);
    await ask("POST", "/refresh");
    assert.equal((await ask("POST", "/logout")).status, 200);
    assert.equal(jar.size, 0);
    assert.equal((await ask("GET", "/getHomeFeed")).body.errType, 2000);
    assert.match((await ask("OPTIONS", "/getHomeFeed")).headers.get("access-control-allow-headers"), /anti-csrf/);
  });
});

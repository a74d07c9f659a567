// supertokens-website in a real browser, an app with supertokens-node, and Rekindle.

"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");

const esbuild = require("esbuild");
const { chromium } = require("playwright-core");

const { Proxy, random, trouble } = require("./browser/proxy");
const { clients } = require("./clients");
const { Site } = require("./site");

const REFRESH = "/auth/session/refresh";
/** How many users go through trouble at once. */
const USERS = 4;
/** A thief's own, which goes with nothing. */
const [COMMITMENT, OPENING] = [22, 43].map((length) => "A".padStart(length, "B"));
const ROUNDS = process.env.REKINDLE_FULL ? 500 : 60;

/** The page, with supertokens-website in it. */
const pages = () => {
  const { outputFiles } = esbuild.buildSync({
    entryPoints: [path.join(__dirname, "browser/page.js")],
    bundle: true,
    write: false,
    format: "iife",
    nodePaths: [process.env.NODE_PATH],
  });
  return {
    "/": ["text/html", '<!doctype html><title>app</title><link rel="icon" href="data:,"><script src="/page.js"></script>'],
    "/page.js": ["text/javascript", outputFiles[0].text],
  };
};

/** A browser before a site, with proxies between browser, app and server. */
class World {
  /** For the tests of a suite; access tokens live so many seconds. */
  static of(accessTokens) {
    const world = new this();
    before(() => world.#start(accessTokens));
    after(() => world.#stop());
    return world;
  }

  async #start(accessTokens) {
    this.accessTokens = accessTokens;
    const client = clients.find(({ name }) => name === "supertokens-node 24.0.3 on express");
    this.proxies = [];
    const between = async (core) => {
      this.proxies.push(await Proxy.start(core));
      return this.proxies[0].address;
    };
    this.site = await Site.start(client, { accessTokens, between });
    this.front = await Proxy.start(this.site.app.address, pages());
    this.proxies.push(this.front);
    this.browser = await chromium.launch({ executablePath: process.env.CHROMIUM });
  }

  async #stop() {
    await this.browser?.close();
    for (const proxy of this.proxies ?? []) proxy.stop();
    await this.site?.stop();
  }

  expired() {
    return sleep(this.accessTokens * 1000 + 100);
  }

  /** A profile of its own with some tabs on the page, logged in as this user; `query` says how the page sets its SDK up. */
  async logIn(userId, count = 1, query = "") {
    const context = await this.browser.newContext();
    // Pages wait on a busy machine; what a page does about it is what is tested.
    context.setDefaultTimeout(180_000);
    const tabs = [];
    while (tabs.length < count) {
      const tab = await context.newPage();
      await tab.goto(`${this.front.address}/${query}`);
      tabs.push(tab);
    }
    const login = await tabs[0].evaluate((userId) => page.ask("POST", "/login", { userId }), userId);
    assert.equal(login.status, 200, login.body);
    return { context, tabs, handles: await this.sessionsOf(userId) };
  }

  /** Asked again while the way from app to server is in trouble, or the app closes a connection that was idle. */
  async sessionsOf(userId) {
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await fetch(`${this.site.app.address}/sessions?userId=${userId}`);
        if (answer.ok || attempt === 30) return await answer.json();
      } catch (error) {
        if (attempt === 30) throw error;
      }
    }
  }

  /** How many refreshes reach the app during this. */
  async refreshesDuring(work) {
    const count = () => this.front.counts.get(REFRESH) ?? 0;
    const before = count();
    await work();
    return count() - before;
  }
}

const signedIn = (tab) => tab.evaluate(() => page.Session.doesSessionExist());

/** Ten calls at once, spread over the tabs; all must be answered with this user. */
const tenCalls = async (tabs, userId, how = "ask") => {
  const calls = tabs.map((tab) =>
    tab.evaluate(
      ([count, how]) => Promise.all(Array.from({ length: count }, () => page[how]("GET", "/me"))),
      [10 / tabs.length, how],
    ),
  );
  for (const { status, body } of (await Promise.all(calls)).flat()) {
    assert.equal(status, 200, body);
    assert.equal(JSON.parse(body).userId, userId);
  }
};

const badNetwork = (how, query) =>
  describe(how, () => {
    const world = World.of(3);

    it(`detects no false theft in ${ROUNDS} rounds of late and lost requests and answers`, async (t) => {
      const seed = Date.now() % 1_000_000;
      t.diagnostic(`seed ${seed}`);
      const numbers = random(seed);
      const users = await Promise.all(Array.from({ length: USERS }, (_, i) => world.logIn(`user-${i}`, 2, query)));
      for (const proxy of world.proxies) proxy.trouble = trouble(numbers);
      const rounds = users.map(async ({ tabs, handles }, i) => {
        for (let round = 0; round < ROUNDS / USERS; round++) {
          await world.expired();
          await tenCalls(tabs, `user-${i}`, "insist");
          assert.deepEqual(await world.sessionsOf(`user-${i}`), handles);
          for (const tab of tabs) {
            // Not doesSessionExist: it answers no, too, when it cannot refresh because of the network.
            const events = await tab.evaluate(() => page.events);
            assert.ok(!events.includes("UNAUTHORISED") && !events.includes("SIGN_OUT"), String(events));
          }
        }
      });
      await Promise.all(rounds);
    });
  });

describe("supertokens-website 20.1.6 in Chromium, with supertokens-node 24.0.3 on express", { concurrency: 1 }, () => {
  describe("on a good network", { concurrency: 1 }, () => {
    const world = World.of(6);

    it("logs in and calls; ten parallel calls with an expired token refresh once", async () => {
      const { context, tabs, handles } = await world.logIn("alice");
      assert.equal(await signedIn(tabs[0]), true);
      await tenCalls(tabs, "alice");
      await world.expired();
      assert.equal(await world.refreshesDuring(() => tenCalls(tabs, "alice")), 1);
      assert.deepEqual(await world.sessionsOf("alice"), handles);
      await context.close();
    });

    it("refreshes once for two tabs, and signs both out", async () => {
      const { context, tabs } = await world.logIn("bob", 2);
      await world.expired();
      assert.equal(await world.refreshesDuring(() => tenCalls(tabs, "bob")), 1);
      await tabs[0].evaluate(() => page.Session.signOut());
      for (const tab of tabs) {
        assert.equal(await signedIn(tab), false);
        assert.equal((await tab.evaluate(() => page.ask("GET", "/me"))).status, 401);
      }
      assert.deepEqual(await world.sessionsOf("bob"), []);
      await context.close();
    });

    it("sees a stolen refresh token, and ends the session", async () => {
      const { context, tabs } = await world.logIn("carol");
      const stolen = (await context.cookies(world.front.address + REFRESH)).find(({ name }) => name === "sRefreshToken");
      await world.expired();
      await tenCalls(tabs, "carol");
      const headers = { cookie: `sRefreshToken=${stolen.value}`, "st-auth-mode": "cookie" };
      const theft = await fetch(world.site.app.address + REFRESH, { method: "POST", headers });
      assert.deepEqual([theft.status, await theft.json()], [401, { message: "token theft detected" }]);
      assert.deepEqual(await world.sessionsOf("carol"), []);
      await world.expired();
      assert.equal((await tabs[0].evaluate(() => page.ask("GET", "/me"))).status, 401);
      assert.equal(await signedIn(tabs[0]), false);
      await context.close();
    });
  });

  describe("with proofs", { concurrency: 1 }, () => {
    const world = World.of(6);
    const held = ({ tabs }) => tabs[0].evaluate(() => /st-refresh-token=([^;]+)/.exec(document.cookie)[1]);
    const refreshWith = (token) => {
      const headers = { authorization: `Bearer ${token}`, "st-auth-mode": "header" };
      return fetch(world.site.app.address + REFRESH, { method: "POST", headers });
    };

    it("gives nothing for a stolen refresh token, and the session goes on", async () => {
      const dave = await world.logIn("dave", 2, "?proving");
      // The first refresh commits the session, the second one proves it.
      for (let refresh = 0; refresh < 2; refresh++) {
        await world.expired();
        assert.equal(await world.refreshesDuring(() => tenCalls(dave.tabs, "dave")), 1);
      }
      for (const token of [await held(dave), `${await held(dave)}~${COMMITMENT}`]) {
        const answer = await refreshWith(token);
        assert.deepEqual([answer.status, await answer.json()], [401, { message: "unauthorised" }]);
      }
      await world.expired();
      assert.equal(await world.refreshesDuring(() => tenCalls(dave.tabs, "dave")), 1);
      assert.deepEqual(await world.sessionsOf("dave"), dave.handles);
      await dave.context.close();
    });

    it("sees a wrong opening", async () => {
      const erin = await world.logIn("erin", 1, "?proving");
      await world.expired();
      await tenCalls(erin.tabs, "erin");
      const theft = await refreshWith(`${await held(erin)}~${COMMITMENT}~${OPENING}`);
      assert.deepEqual([theft.status, await theft.json()], [401, { message: "token theft detected" }]);
      assert.deepEqual(await world.sessionsOf("erin"), []);
      await erin.context.close();
    });
  });

  for (const [how, query] of [["on a bad network", ""], ["with proofs on a bad network", "?proving"]]) badNetwork(how, query);
});

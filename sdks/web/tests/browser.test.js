// Chromium before an example backend: pages with rekindle-web, tabs, workers, and a network that fails.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { chromium } from "playwright-core";

import { random, trouble } from "./browser/proxy.js";
import { Site } from "./browser/site.js";

const REFRESH = "/auth/session/refresh";
/** Seconds that access tokens live. */
const LIFETIME = 2;
/** How many users go through trouble at once. */
const USERS = 4;
const ROUNDS = process.env.REKINDLE_FULL ? 500 : 60;

let site, browser;
before(async () => {
  site = await Site.start(LIFETIME);
  // Playwright turns this cache off.
  const ignoreDefaultArgs = ["--disable-back-forward-cache"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, ignoreDefaultArgs });
});
after(async () => {
  await browser?.close();
  await site?.stop();
});

const expired = () => sleep(LIFETIME * 1000 + 200);

const open = async (context, path = "/") => {
  const tab = await context.newPage();
  await tab.goto(site.proxy.address + path);
  return tab;
};

/** A profile of its own with some tabs on the page, logged in as this user. */
const logIn = async (user, { tabs: count = 1, path = "/", prepare = () => {} } = {}) => {
  const context = await browser.newContext();
  await prepare(context);
  const tabs = [];
  while (tabs.length < count) tabs.push(await open(context, path));
  const login = await tabs[0].evaluate((user) => page.fetch("POST", "/login", { user }), user);
  assert.equal(login.status, 200, login.body);
  return { context, tabs, tab: tabs[0], sessions: await sessionsOf(user) };
};

const sessionsOf = async (user) => (await fetch(`${site.backend}/sessions?user=${user}`)).json();

const requests = (path) => site.proxy.counts.get(path) ?? 0;

/** How many refreshes reach the backend during this. */
const refreshesDuring = async (work) => {
  const before = requests(REFRESH);
  await work();
  return requests(REFRESH) - before;
};

const me = (tab, how = "fetch") => tab.evaluate((how) => page[how]("GET", "/me"), how);

/** Some calls at once from each tab; all must be answered with this user. */
const call = async (tabs, user, { each = 1, how = "fetch" } = {}) => {
  const answers = await Promise.all(tabs.flatMap((tab) => Array.from({ length: each }, () => me(tab, how))));
  for (const { status, body } of answers) {
    assert.equal(status, 200, body);
    assert.equal(JSON.parse(body).user, user);
  }
};

const kinds = (tab) => tab.evaluate(() => page.events.map(({ type }) => type));

/** What is different from before a trouble: nothing, for a user who did not sign out. */
const unharmed = async ({ tabs, sessions }, user) => {
  assert.deepEqual(await sessionsOf(user), sessions);
  for (const tab of tabs) {
    const bad = (await kinds(tab)).filter((type) => ["signedOut", "expired", "theft", "failed"].includes(type));
    assert.deepEqual(bad, []);
    assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), true);
  }
};

/** Trouble with requests to the refresh route while the work is done: the first ones, as many as there are troubles. */
const withTrouble = async (troubles, work) => {
  const left = [...troubles];
  site.proxy.trouble = (path) => (path === REFRESH ? (left.shift() ?? {}) : {});
  try {
    return await work();
  } finally {
    site.proxy.trouble = () => ({});
  }
};

describe("rekindle-web in Chromium", { concurrency: 1 }, () => {
  it("logs in under a strict content security policy, and calls", async () => {
    const { context, tab } = await logIn("alice", { tabs: 1 });
    await call([tab], "alice");
    assert.deepEqual(await kinds(tab), ["created"]);
    assert.deepEqual(await tab.evaluate(() => page.violations), []);
    await context.close();
  });

  for (const how of ["fetch", "xhr", "axios"]) {
    it(`refreshes once for ten parallel calls with an expired token, by ${how}`, async () => {
      const user = `ten-${how}`;
      const { context, tabs, sessions } = await logIn(user);
      await expired();
      const before = requests("/me");
      assert.equal(await refreshesDuring(() => call(tabs, user, { each: 10, how })), 1);
      assert.equal(requests("/me") - before, 20);
      await unharmed({ tabs, sessions }, user);
      await context.close();
    });
  }

  it("shows one request to who listens to an XMLHttpRequest", async () => {
    const { context, tab } = await logIn("listener");
    const { heard: once } = await me(tab, "xhr");
    await expired();
    const { status, heard } = await me(tab, "xhr");
    assert.equal(status, 200);
    assert.deepEqual(heard, once);
    await context.close();
  });

  for (const locks of [true, false]) {
    it(`refreshes once for ten tabs ${locks ? "with" : "without"} Web Locks`, async () => {
      const user = `tabs-${locks}`;
      const without = () => Object.defineProperty(Navigator.prototype, "locks", { value: undefined });
      const profile = await logIn(user, { tabs: 10, prepare: (context) => !locks && context.addInitScript(without) });
      await expired();
      assert.equal(await refreshesDuring(() => call(profile.tabs, user)), 1);
      await unharmed(profile, user);
      await profile.context.close();
    });
  }

  for (const [when, what] of [["before the server hears of it", { before: 1000 }], ["after the server has rotated", { after: 1000 }]]) {
    it(`survives a tab that is killed in the middle of a refresh, ${when}`, async () => {
      const user = `killed-${Object.keys(what)}`;
      const profile = await logIn(user, { tabs: 3 });
      await expired();
      await withTrouble([what], async () => {
        const [victim] = profile.tabs.splice(0, 1);
        victim.evaluate(() => page.fetch("GET", "/me")).catch(() => {});
        await sleep(400);
        await victim.close();
        await call(profile.tabs, user);
      });
      await expired();
      await call(profile.tabs, user);
      await unharmed(profile, user);
      await profile.context.close();
    });
  }

  it("shares the session with a service worker", async () => {
    const profile = await logIn("worker", { tabs: 2 });
    await profile.tab.evaluate(() => navigator.serviceWorker.register("/worker.js"));
    const refreshes = await refreshesDuring(async () => {
      for (let round = 0; round < 3; round++) {
        await expired();
        await Promise.all([call(profile.tabs, "worker"), call(profile.tabs, "worker", { how: "byWorker", each: 2 })]);
      }
    });
    assert.equal(refreshes, 3);
    await unharmed(profile, "worker");
    await profile.context.close();
  });

  it("finds the session again after the back button", async () => {
    const profile = await logIn("back");
    const { tab } = profile;
    await tab.evaluate(() => addEventListener("pageshow", ({ persisted }) => (page.persisted = persisted)));
    await tab.goto(`${site.proxy.address}/elsewhere`);
    await expired();
    const other = await open(profile.context);
    await call([other], "back");
    await tab.goBack();
    assert.equal(await tab.evaluate(() => page.persisted), true);
    await call([tab], "back");
    await unharmed(profile, "back");
    await tab.goto(`${site.proxy.address}/elsewhere`);
    await other.evaluate(() => page.session.signOut());
    await tab.goBack();
    await tab.waitForFunction(() => page.events.at(-1)?.type === "signedOut");
    assert.equal((await me(tab)).status, 401);
    await profile.context.close();
  });

  it("goes on after being offline for longer than a token lives", async () => {
    const profile = await logIn("offline", { tabs: 2 });
    await profile.context.setOffline(true);
    await expired();
    for (const tab of profile.tabs) await assert.rejects(me(tab), /Failed to fetch/);
    await profile.context.setOffline(false);
    await call(profile.tabs, "offline");
    await unharmed(profile, "offline");
    await profile.context.close();
  });

  it("says that it is offline if only the refresh gets no answer, and goes on later", async () => {
    const profile = await logIn("alone");
    await expired();
    const refreshes = await refreshesDuring(() =>
      withTrouble(Array(20).fill({ before: "drop" }), () => assert.rejects(me(profile.tab), /could not be refreshed/)),
    );
    assert.ok(refreshes >= 5 && refreshes <= 10, `${refreshes}`);
    assert.equal((await kinds(profile.tab)).at(-1), "offline");
    await call([profile.tab], "alone");
    await unharmed(profile, "alone");
    await profile.context.close();
  });

  for (const how of ["drop", "cut"]) {
    it(`gets the same answer again where one is lost after the server rotated, ${how === "cut" ? "also if its cookies came" : "cookies and all"}`, async () => {
      const user = `lost-${how}`;
      const profile = await logIn(user, { tabs: 2 });
      for (const count of [1, 3]) {
        await expired();
        await withTrouble(Array(count).fill({ after: how }), () => call(profile.tabs, user, { each: 3 }));
      }
      await unharmed(profile, user);
      await profile.context.close();
    });
  }

  for (const hours of [-2, 2]) {
    it(`works with a clock that is ${Math.abs(hours)} hours ${hours < 0 ? "slow" : "fast"}`, async () => {
      const user = `clock-${hours}`;
      const shift = (milliseconds) => {
        const { now } = Date;
        Date.now = () => now() + milliseconds;
      };
      const profile = await logIn(user, { tabs: 2, prepare: (context) => context.addInitScript(shift, hours * 3_600_000) });
      assert.equal(await refreshesDuring(() => call(profile.tabs, user)), 0);
      await expired();
      assert.equal(await refreshesDuring(() => call(profile.tabs, user, { each: 3 })), 1);
      await unharmed(profile, user);
      await profile.context.close();
    });
  }

  it("asks for a new sign-in, and sees no theft, when its storage was cleared", async () => {
    const { context, tab } = await logIn("cleared");
    const devtools = await context.newCDPSession(tab);
    const clear = (storageTypes) => devtools.send("Storage.clearDataForOrigin", { origin: site.proxy.address, storageTypes });
    await expired();
    await clear("indexeddb");
    assert.equal((await me(tab)).status, 401);
    const last = await tab.evaluate(() => page.events.at(-1));
    assert.deepEqual([last.type, last.reason], ["expired", "proof_required"]);
    assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), false);
    assert.deepEqual(await sessionsOf("cleared"), []);
    await tab.evaluate(() => page.fetch("POST", "/login", { user: "cleared" }));
    await expired();
    await call([tab], "cleared");
    await clear("all");
    assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), false);
    assert.equal((await me(tab)).status, 401);
    await context.close();
  });

  it("signs out in every tab", async () => {
    const { context, tabs } = await logIn("leaver", { tabs: 2 });
    await tabs[0].evaluate(() => page.session.signOut());
    for (const tab of tabs) {
      await tab.waitForFunction(() => page.events.at(-1)?.type === "signedOut");
      assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), false);
      assert.equal((await me(tab)).status, 401);
    }
    assert.deepEqual(await sessionsOf("leaver"), []);
    await context.close();
  });

  it("carries tokens in headers where there are to be no cookies", async () => {
    const profile = await logIn("header", { tabs: 2, path: "/?mode=header" });
    assert.deepEqual(await profile.context.cookies(), []);
    for (const how of ["fetch", "xhr"]) {
      await expired();
      assert.equal(await refreshesDuring(() => call(profile.tabs, "header", { each: 3, how })), 1);
    }
    await unharmed(profile, "header");
    await profile.tab.evaluate(() => page.session.signOut());
    assert.equal((await me(profile.tab)).status, 401);
    await profile.context.close();
  });

  it("leaves a thief of the cookies without a refresh, and shows one who guesses", async () => {
    const profile = await logIn("carol");
    const thief = await browser.newContext();
    await thief.addCookies(await profile.context.cookies());
    const stranger = await open(thief, "/elsewhere");
    const [sid, generation] = (await profile.context.cookies()).find(({ name }) => name.endsWith("session")).value.split(".");
    const refresh = (headers) =>
      stranger.evaluate(async ([url, headers]) => {
        const answer = await fetch(url, { method: "POST", headers });
        return [answer.status, (await answer.json()).code];
      }, [REFRESH, headers]);
    const proof = `sid="${sid}", gen=${generation}, c=:${Buffer.alloc(16, 1).toString("base64")}:`;
    assert.deepEqual(await refresh({ "Rekindle-Request": "1" }), [401, "proof_required"]);
    assert.deepEqual(await refresh({ "Rekindle-Proof": proof }), [401, "proof_required"]);
    await expired();
    await call([profile.tab], "carol");
    await unharmed(profile, "carol");
    await profile.context.clearCookies();
    await profile.context.addCookies(await thief.cookies());
    const guess = `${proof}, o=:${Buffer.alloc(32, 1).toString("base64")}:`;
    assert.deepEqual(await refresh({ "Rekindle-Proof": guess }), [401, "token_theft_detected"]);
    await expired();
    assert.equal((await me(profile.tab)).status, 401);
    await thief.close();
    await profile.context.close();
  });

  it(`signs nobody out in ${ROUNDS} rounds of late and lost requests and answers`, async (t) => {
    const seed = Number(process.env.REKINDLE_SEED ?? Date.now() % 1_000_000);
    t.diagnostic(`seed ${seed}; REKINDLE_SEED repeats it`);
    const names = Array.from({ length: USERS }, (_, i) => `user-${i}`);
    const profiles = await Promise.all(names.map((user) => logIn(user, { tabs: 2 })));
    const before = [requests("/me"), requests(REFRESH)];
    site.proxy.trouble = trouble(random(seed));
    let calls = 0;
    try {
      await Promise.all(
        profiles.map(async (profile, i) => {
          for (let round = 0; round < ROUNDS / USERS; round++) {
            await expired();
            calls += 10;
            await call(profile.tabs, names[i], { each: 5, how: "insist" });
            await unharmed(profile, names[i]);
          }
        }),
      );
    } finally {
      site.proxy.trouble = () => ({});
    }
    const [sent, refreshes] = [requests("/me") - before[0], requests(REFRESH) - before[1]];
    t.diagnostic(`${calls} calls: ${sent} requests, ${refreshes} refreshes`);
    // Each call once expired and once repeated, and again for those that were lost; each round of a user once, and again for those.
    assert.ok(sent <= 4 * calls && refreshes <= 4 * ROUNDS, `${sent} requests, ${refreshes} refreshes`);
    await Promise.all(profiles.map(({ context }) => context.close()));
  });
});

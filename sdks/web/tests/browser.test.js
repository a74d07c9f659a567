// Chromium before an example backend: pages with rekindle-web, tabs, workers, and a network that fails.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import { chromium } from "playwright-core";

import { REFRESH, call, countDuring, kinds, logInto, me, open, refreshesOnce, unharmed, withTrouble } from "./browser/profile.js";
import { trouble } from "./browser/proxy.js";
import { Site } from "./browser/site.js";
import { random } from "./world.js";

/** How many users go through trouble at once. */
const USERS = 4;
const ROUNDS = process.env.REKINDLE_FULL ? 500 : 60;

/** A page or an answer may take so many milliseconds on a machine that is busy. */
const PATIENCE = 120_000;

let browser;
/** Where access tokens live for an hour, and expire when a test says so. */
let site;
/** Where access tokens expire by themselves. */
let brief;
before(async () => {
  const began = performance.now();
  // Playwright turns this cache off.
  const ignoreDefaultArgs = ["--disable-back-forward-cache"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, ignoreDefaultArgs, timeout: PATIENCE });
  await (await browser.newPage()).close();
  site = await Site.start(3600);
  // Longer on a slow machine, or tokens would grow old before they are used.
  brief = await Site.start(Math.min(15, Math.max(4, Math.ceil((performance.now() - began) / 500))));
});
after(async () => {
  await browser?.close();
  await site?.stop();
  await brief?.stop();
});

/** A profile of its own with some tabs on the page, logged in as this user. */
const logIn = async (user, { at = site, prepare = () => {}, ...how } = {}) => {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE);
  await prepare(context);
  return logInto(context, at, user, how);
};

/** The access token expires. To the backend, one that the browser has dropped is the same as one whose time is over. */
const expired = ({ context, site }) => (site === brief ? site.expire() : context.clearCookies({ name: "rekindle-access" }));

/** A refresh without rekindle-web: status and code. */
const bareRefresh = (tab, headers) =>
  tab.evaluate(
    async ([url, headers]) => {
      const answer = await (window.page?.native ?? fetch)(url, { method: "POST", headers });
      return [answer.status, (await answer.json()).code];
    },
    [REFRESH, { "Rekindle-Request": "1", ...headers }],
  );

describe("rekindle-web in Chromium", { concurrency: 1 }, () => {
  it("logs in under a strict content security policy, and calls", async () => {
    const profile = await logIn("alice");
    await call(profile);
    assert.deepEqual(await kinds(profile.tab), ["created"]);
    assert.deepEqual(await profile.tab.evaluate(() => page.violations), []);
    await profile.context.close();
  });

  for (const how of ["fetch", "xhr", "axios"]) {
    it(`refreshes once for ten parallel calls with an expired token, by ${how}`, async () => {
      const profile = await logIn(`ten-${how}`);
      await expired(profile);
      const calls = () => refreshesOnce(profile, () => call(profile, { each: 10, how }));
      assert.equal(await countDuring(site, "/api/me", calls), 20);
      await unharmed(profile);
      await profile.context.close();
    });
  }

  it("refreshes once for the calls of two tabs when a token's time is over", async () => {
    const profile = await logIn("time", { tabs: 2, at: brief });
    for (let round = 0; round < 2; round++) {
      await expired(profile);
      await refreshesOnce(profile, () => call(profile, { each: 3 }));
    }
    await unharmed(profile);
    await profile.context.close();
  });

  it("shows one request to who listens to an XMLHttpRequest", async () => {
    const profile = await logIn("listener");
    const { context, tab } = profile;
    const { heard: once } = await me(tab, "xhr");
    await expired(profile);
    const { status, heard } = await me(tab, "xhr");
    assert.equal(status, 200);
    assert.deepEqual(heard, once);
    await context.close();
  });

  for (const locks of [true, false]) {
    it(`refreshes once for ten tabs with expired tokens, ${locks ? "with" : "without"} Web Locks`, async () => {
      const without = () => Object.defineProperty(Navigator.prototype, "locks", { value: undefined });
      const prepare = (context) => !locks && context.addInitScript(without);
      const profile = await logIn(`tabs-${locks}`, { tabs: 10, prepare });
      await expired(profile);
      await refreshesOnce(profile, () => call(profile));
      await unharmed(profile);
      await profile.context.close();
    });
  }

  for (const [when, what] of [["before the server hears of it", { before: 3000 }], ["after the server has rotated", { after: 3000 }]]) {
    it(`survives a tab that is killed in the middle of a refresh, ${when}`, async () => {
      const profile = await logIn(`killed-${Object.keys(what)}`, { tabs: 3 });
      await expired(profile);
      await withTrouble(profile, [what], async () => {
        const [victim] = profile.tabs.splice(0, 1);
        const [came, answered] = [site.proxy.came(REFRESH), site.proxy.answered(REFRESH)];
        victim.evaluate(() => page.fetch("GET", "/api/me")).catch(() => {});
        await (what.before ? came : answered);
        await victim.close();
        await call(profile);
      });
      await expired(profile);
      await call(profile);
      await unharmed(profile);
      await profile.context.close();
    });
  }

  it("shares the session with a service worker", async () => {
    const profile = await logIn("worker", { tabs: 2 });
    await profile.tab.evaluate(() => navigator.serviceWorker.register("/worker.js"));
    for (let round = 0; round < 3; round++) {
      await expired(profile);
      await refreshesOnce(profile, () => Promise.all([call(profile), call(profile, { how: "byWorker", each: 2 })]));
    }
    await unharmed(profile);
    await profile.context.close();
  });

  it("finds the session as it is after the back button", async () => {
    const profile = await logIn("back");
    const { tab } = profile;
    await tab.evaluate(() => addEventListener("pageshow", ({ persisted }) => (page.persisted = persisted)));
    const away = () => tab.goto(`${site.proxy.address}/elsewhere`);
    // A page out of the cache does not load.
    const back = () => tab.goBack({ waitUntil: "commit" });
    await away();
    await expired(profile);
    const other = await open(profile.context, site);
    await call({ ...profile, tabs: [other] });
    await back();
    assert.equal(await tab.evaluate(() => page.persisted), true);
    await call(profile);
    await unharmed(profile);
    await away();
    await other.evaluate(() => page.session.signOut());
    await back();
    await tab.waitForFunction(() => page.events.at(-1)?.type === "signedOut");
    assert.equal((await me(tab)).status, 401);
    await profile.context.close();
  });

  it("goes on after being offline for longer than a token lives", async () => {
    const profile = await logIn("offline", { tabs: 2, at: brief });
    await profile.context.setOffline(true);
    await expired(profile);
    for (const tab of profile.tabs) await assert.rejects(me(tab), /Failed to fetch/);
    await profile.context.setOffline(false);
    await call(profile);
    await unharmed(profile);
    await profile.context.close();
  });

  it("says that it is offline if only the refresh gets no answer, and goes on later", async () => {
    const profile = await logIn("alone");
    await expired(profile);
    const refreshes = await countDuring(site, REFRESH, () =>
      withTrouble(profile, Array(20).fill({ before: "drop" }), () => assert.rejects(me(profile.tab), /could not be refreshed/)),
    );
    // Chromium repeats a request of its own accord when a connection that was open before breaks.
    assert.ok(refreshes >= 5 && refreshes <= 10, `${refreshes}`);
    assert.equal((await kinds(profile.tab)).at(-1), "offline");
    await call(profile);
    await unharmed(profile);
    await profile.context.close();
  });

  for (const [how, what] of [["drop", "cookies and all"], ["cut", "although its cookies came"]]) {
    it(`gets the same answer again where one is lost after the server rotated, ${what}`, async () => {
      const profile = await logIn(`lost-${how}`, { tabs: 2 });
      for (const count of [1, 3]) {
        await expired(profile);
        await withTrouble(profile, Array(count).fill({ after: how }), () => call(profile, { each: 3 }));
      }
      await unharmed(profile);
      await profile.context.close();
    });
  }

  for (const hours of [-2, 2]) {
    it(`works with a clock that is two hours ${hours < 0 ? "slow" : "fast"}`, async () => {
      const shift = (milliseconds) => {
        const { now } = Date;
        Date.now = () => now() + milliseconds;
      };
      const prepare = (context) => context.addInitScript(shift, hours * 3_600_000);
      const profile = await logIn(`clock${hours}`, { tabs: 2, at: brief, prepare });
      await call(profile);
      await expired(profile);
      await refreshesOnce(profile, () => call(profile, { each: 3 }));
      await unharmed(profile);
      await profile.context.close();
    });
  }

  it("asks for a new sign-in, and sees no theft, when its storage was cleared", async () => {
    const profile = await logIn("cleared");
    const { context, tab } = profile;
    const devtools = await context.newCDPSession(tab);
    const clear = (storageTypes) => devtools.send("Storage.clearDataForOrigin", { origin: site.proxy.address, storageTypes });
    await expired(profile);
    await clear("indexeddb");
    assert.equal((await me(tab)).status, 401);
    const last = await tab.evaluate(() => page.events.at(-1));
    assert.deepEqual([last.type, last.reason], ["expired", "proof_required"]);
    assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), false);
    assert.deepEqual(await context.cookies(), []);
    await tab.evaluate(() => page.fetch("POST", "/login", "user=cleared"));
    await expired(profile);
    assert.equal((await me(tab)).status, 200);
    await clear("all");
    assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), false);
    assert.equal((await me(tab)).status, 401);
    await context.close();
  });

  it("signs out in every tab, and on the server", async () => {
    const { context, tabs } = await logIn("leaver", { tabs: 2 });
    const cookies = await context.cookies();
    await tabs[0].evaluate(() => page.session.signOut());
    for (const tab of tabs) {
      await tab.waitForFunction(() => page.events.at(-1)?.type === "signedOut");
      assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), false);
      assert.equal((await me(tab)).status, 401);
    }
    await context.addCookies(cookies);
    assert.deepEqual(await bareRefresh(tabs[0], {}), [401, "session_revoked"]);
    await context.close();
  });

  it("carries tokens in headers where there are to be no cookies", async () => {
    const profile = await logIn("header", { tabs: 2, at: brief, path: "/app?mode=header" });
    assert.deepEqual(await profile.context.cookies(), []);
    for (const how of ["fetch", "xhr"]) {
      await expired(profile);
      await refreshesOnce(profile, () => call(profile, { each: 3, how }));
    }
    await unharmed(profile);
    await profile.tab.evaluate(() => page.session.signOut());
    assert.equal((await me(profile.tab)).status, 401);
    await profile.context.close();
  });

  it("goes by headers where a browser blocks the cookies of third parties, and without them is just signed out", async (t) => {
    const args = ["--test-third-party-cookie-phaseout"];
    const strict = await chromium.launch({ executablePath: process.env.CHROMIUM, args, timeout: PATIENCE });
    t.after(() => strict.close());
    // The application in a frame of somebody else's page: to a browser, this name is another site than `localhost`.
    const outer = brief.proxy.address.replace("localhost", "127.0.0.1");
    const framed = async (context, mode) => {
      const tab = await context.newPage();
      await tab.goto(`${outer}/outer`);
      const [frame] = await Promise.all([
        tab.waitForEvent("framenavigated", (frame) => frame.url().includes("/app")),
        tab.evaluate((url) => {
          document.body.append(Object.assign(document.createElement("iframe"), { src: url }));
        }, `${brief.proxy.address}/app?mode=${mode}`),
      ]);
      await frame.waitForFunction(() => window.page);
      return frame;
    };
    const context = await strict.newContext();
    context.setDefaultTimeout(PATIENCE);
    const frame = await framed(context, "cookie");
    await frame.evaluate(() => page.fetch("POST", "/login", "user=framed"));
    const asked = await countDuring(brief, "/api/me", async () => assert.equal((await me(frame)).status, 401));
    assert.deepEqual([asked, await context.cookies()], [1, []]);
    assert.equal(await frame.evaluate(() => page.session.doesSessionExist()), false);

    const newPage = () => framed(context, "header").then((frame) => Object.assign(frame, { goto: () => {} }));
    const profile = await logInto({ newPage }, brief, "framed");
    for (const how of ["fetch", "xhr"]) {
      await expired(profile);
      await refreshesOnce(profile, () => call(profile, { each: 3, how }));
    }
    await unharmed(profile);
    assert.deepEqual(await context.cookies(), []);
  });

  it("renews the session of a page that the server would not show, and shows it", async () => {
    const profile = await logIn("reader");
    await expired(profile);
    const tab = await profile.context.newPage();
    await refreshesOnce(profile, () => tab.goto(`${site.proxy.address}/page`).then(() => tab.waitForSelector("#user")));
    assert.equal(await tab.textContent("#user"), "reader");
    await expired(profile);
    await call(profile);
    await unharmed(profile);
    await profile.context.clearCookies({ name: /access|session/ });
    await tab.goto(`${site.proxy.address}/page`).catch(() => {});
    await tab.waitForURL("**/login");
    await profile.context.close();
  });

  it("leaves a thief of the cookies without a refresh, and shows one who guesses", async () => {
    const profile = await logIn("carol");
    const thief = await browser.newContext();
    await thief.addCookies(await profile.context.cookies());
    const stranger = await open(thief, site, "/elsewhere");
    const [sid, generation] = (await profile.context.cookies()).find(({ name }) => name.endsWith("session")).value.split(".");
    const proof = `sid="${sid}", gen=${generation}, c=:${Buffer.alloc(16, 1).toString("base64")}:`;
    assert.deepEqual(await bareRefresh(stranger, {}), [401, "proof_required"]);
    assert.deepEqual(await bareRefresh(stranger, { "Rekindle-Proof": proof }), [401, "proof_required"]);
    await expired(profile);
    await call(profile);
    await unharmed(profile);
    const guess = `${proof}, o=:${Buffer.alloc(32, 1).toString("base64")}:`;
    assert.deepEqual(await bareRefresh(stranger, { "Rekindle-Proof": guess }), [401, "token_theft_detected"]);
    await expired(profile);
    assert.equal((await me(profile.tab)).status, 401);
    assert.equal((await kinds(profile.tab)).at(-1), "expired");
    await thief.close();
    await profile.context.close();
  });

  it("sees a copy of the whole profile when its owner comes back", async () => {
    const profile = await logIn("dave");
    const thief = await browser.newContext({ storageState: await profile.context.storageState({ indexedDB: true }) });
    const stranger = await open(thief, site);
    for (let step = 0; step < 3; step++) {
      await expired({ context: thief, site });
      assert.equal((await me(stranger)).status, 200);
    }
    await expired(profile);
    assert.equal((await me(profile.tab)).status, 401);
    const last = await profile.tab.evaluate(() => page.events.at(-1));
    assert.deepEqual([last.type, last.kind], ["theft", "forked"]);
    await expired({ context: thief, site });
    assert.equal((await me(stranger)).status, 401);
    await thief.close();
    await profile.context.close();
  });

  it(`signs nobody out in ${ROUNDS} rounds of late and lost requests and answers`, async (t) => {
    const seed = Number(process.env.REKINDLE_SEED ?? Date.now() % 1_000_000);
    t.diagnostic(`seed ${seed}; REKINDLE_SEED repeats it`);
    const profiles = [];
    while (profiles.length < USERS) profiles.push(await logIn(`user-${profiles.length}`, { tabs: 2 }));
    const count = (path) => site.proxy.counts.get(path) ?? 0;
    const before = [count("/api/me"), count(REFRESH)];
    site.proxy.trouble = trouble(random(seed));
    let calls = 0;
    try {
      await Promise.all(
        profiles.map(async (profile) => {
          for (let round = 0; round < ROUNDS / USERS; round++) {
            await expired(profile);
            calls += 6;
            await call(profile, { each: 3, how: "insist" });
            await unharmed(profile);
          }
        }),
      );
    } finally {
      site.proxy.trouble = () => ({});
    }
    const [sent, refreshes] = [count("/api/me") - before[0], count(REFRESH) - before[1]];
    t.diagnostic(`${calls} calls: ${sent} requests, ${refreshes} refreshes`);
    // Each call once expired and once repeated, each round refreshed once, and all of it again where something was lost or late.
    assert.ok(sent <= 6 * calls && refreshes <= 6 * ROUNDS, `${sent} requests, ${refreshes} refreshes`);
    await Promise.all(profiles.map(({ context }) => context.close()));
  });
});

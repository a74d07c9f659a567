// Firefox, as Debian has it, before the example backend: what rests on the browser's own storage, locks and cookies.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import puppeteer from "puppeteer-core";

import { REFRESH, call, kinds, logInto, me, open, refreshesOnce, unharmed, withTrouble } from "./browser/profile.js";
import { trouble } from "./browser/proxy.js";
import { Site } from "./browser/site.js";
import { random } from "./world.js";

/** A page or an answer may take so many milliseconds on a machine that is busy. */
const PATIENCE = 120_000;
/** How many times users go through trouble. */
const ROUNDS = process.env.REKINDLE_FULL ? 60 : 6;

let browser, site;
before(async () => {
  const began = performance.now();
  browser = await puppeteer.launch({ browser: "firefox", executablePath: process.env.FIREFOX, timeout: PATIENCE, protocolTimeout: PATIENCE });
  await (await browser.newPage()).close();
  // Longer on a slow machine, or tokens would grow old before they are used.
  site = await Site.start(Math.min(15, Math.max(4, Math.ceil((performance.now() - began) / 1000))));
});
after(async () => {
  await browser?.close();
  await site?.stop();
});

const logIn = async (user, how) => logInto(await browser.createBrowserContext(), site, user, how);

describe("rekindle-web in Firefox", { concurrency: 1 }, () => {
  it("logs in under a strict content security policy, and calls", async () => {
    const profile = await logIn("alice");
    await call(profile);
    assert.deepEqual(await kinds(profile.tab), ["created"]);
    assert.deepEqual(await profile.tab.evaluate(() => page.violations), []);
    await profile.context.close();
  });

  it("refreshes once for ten parallel calls with an expired token, by fetch, XHR and axios", async () => {
    const profile = await logIn("ten");
    for (const how of ["fetch", "xhr", "axios"]) {
      await site.expire();
      await refreshesOnce(profile, () => call(profile, { each: 10, how }));
    }
    await unharmed(profile);
    await profile.context.close();
  });

  it("refreshes once for ten tabs with expired tokens", async () => {
    const profile = await logIn("tabs", { tabs: 10 });
    await site.expire();
    await refreshesOnce(profile, () => call(profile));
    await unharmed(profile);
    await profile.context.close();
  });

  it("survives a tab that is killed in the middle of a refresh", async () => {
    const profile = await logIn("killed", { tabs: 3 });
    await site.expire();
    await withTrouble(profile, [{ after: 3000 }], async () => {
      const [victim] = profile.tabs.splice(0, 1);
      const answered = site.proxy.answered(REFRESH);
      victim.evaluate(() => page.fetch("GET", "/api/me")).catch(() => {});
      await answered;
      await victim.close();
      await call(profile);
    });
    await unharmed(profile);
    await profile.context.close();
  });

  it("gets the same answer again where one is lost after the server rotated", async () => {
    const profile = await logIn("lost", { tabs: 2 });
    for (const how of ["drop", "cut"]) {
      await site.expire();
      await withTrouble(profile, Array(3).fill({ after: how }), () => call(profile, { each: 3 }));
    }
    await unharmed(profile);
    await profile.context.close();
  });

  it("carries tokens in headers where there are to be no cookies", async () => {
    const profile = await logIn("header", { tabs: 2, path: "/app?mode=header" });
    await site.expire();
    await refreshesOnce(profile, () => call(profile, { each: 3 }));
    assert.deepEqual(await profile.context.cookies(), []);
    await unharmed(profile);
    await profile.context.close();
  });

  it("signs out in every tab", async () => {
    const { context, tabs } = await logIn("leaver", { tabs: 2 });
    await tabs[0].evaluate(() => page.session.signOut());
    for (const tab of tabs) {
      await tab.waitForFunction(() => page.events.at(-1)?.type === "signedOut");
      assert.equal((await me(tab)).status, 401);
    }
    await context.close();
  });

  it("renews the session of a page that the server would not show, and shows it", async () => {
    const profile = await logIn("reader");
    await site.expire();
    const tab = await open(profile.context, site, "/page");
    await tab.waitForSelector("#user");
    assert.equal(await tab.$eval("#user", ({ textContent }) => textContent), "reader");
    await call(profile);
    await unharmed(profile);
    await profile.context.close();
  });

  it(`signs nobody out in ${ROUNDS} rounds of late and lost requests and answers`, async (t) => {
    const seed = Number(process.env.REKINDLE_SEED ?? Date.now() % 1_000_000);
    t.diagnostic(`seed ${seed}; REKINDLE_SEED repeats it`);
    const profile = await logIn("troubled", { tabs: 2 });
    site.proxy.trouble = trouble(random(seed));
    try {
      for (let round = 0; round < ROUNDS; round++) {
        await site.expire();
        await call(profile, { each: 3, how: "insist" });
        await unharmed(profile);
      }
    } finally {
      site.proxy.trouble = () => ({});
    }
    await profile.context.close();
  });
});

// A user's browser before an example backend, whatever kind of browser it is: tabs that call, and what they must not be told.

import assert from "node:assert/strict";

export const REFRESH = "/auth/session/refresh";

export const open = async (context, site, path = "/app") => {
  const tab = await context.newPage();
  await tab.goto(site.proxy.address + path);
  return tab;
};

/** A new profile with some tabs on the page, logged in as this user. */
export const logInto = async (context, site, user, { tabs: count = 1, path = "/app" } = {}) => {
  const tabs = [];
  while (tabs.length < count) tabs.push(await open(context, site, path));
  const [tab] = tabs;
  const login = await tab.evaluate((user) => page.fetch("POST", "/login", `user=${user}`), user);
  assert.ok(login.status < 300, login.body);
  const { body } = await me(tab);
  return { context, tabs, tab, user, session: JSON.parse(body).session_id, site };
};

/** How many requests came to this path during the work. */
export const countDuring = async (site, path, work) => {
  const count = () => site.proxy.counts.get(path) ?? 0;
  const before = count();
  await work();
  return count() - before;
};

/** The work refreshes once; or once in each lifetime of a token, if it takes longer than one. */
export const refreshesOnce = async ({ site }, work) => {
  const began = performance.now();
  const refreshes = await countDuring(site, REFRESH, work);
  const lifetimes = Math.floor((performance.now() - began) / (site.lifetime * 1000));
  assert.ok(refreshes >= 1 && refreshes <= 1 + lifetimes, `${refreshes} refreshes in ${lifetimes} lifetimes`);
};

export const me = (tab, how = "fetch") => tab.evaluate((how) => page[how]("GET", "/api/me"), how);

/** Some calls at once from each tab; all must be answered in this session. */
export const call = async ({ tabs, user, session }, { each = 1, how = "fetch" } = {}) => {
  const answers = await Promise.all(tabs.flatMap((tab) => Array.from({ length: each }, () => me(tab, how))));
  for (const { status, body } of answers) {
    assert.equal(status, 200, body);
    const { user_id, session_id } = JSON.parse(body);
    assert.deepEqual([user_id, session_id], [user, session]);
  }
};

export const kinds = (tab) => tab.evaluate(() => page.events.map(({ type }) => type));

/** Nobody was told of an end, and the session is still there. */
export const unharmed = async ({ tabs }) => {
  for (const tab of tabs) {
    const bad = (await kinds(tab)).filter((type) => ["signedOut", "expired", "theft", "failed"].includes(type));
    assert.deepEqual(bad, []);
    assert.equal(await tab.evaluate(() => page.session.doesSessionExist()), true);
  }
};

/** Trouble with requests to the refresh route while the work is done: the first ones, as many as there are troubles. */
export const withTrouble = async ({ site }, troubles, work) => {
  const left = [...troubles];
  site.proxy.trouble = (path) => (path === REFRESH ? (left.shift() ?? {}) : {});
  try {
    return await work();
  } finally {
    site.proxy.trouble = () => ({});
  }
};

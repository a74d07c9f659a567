// The client as a whole, in tabs without a browser.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { Browser, loggedIn, ORIGIN, World } from "./world.js";

const REFRESH = "/auth/session/refresh";
const me = ({ client }) => client.fetch("/me");

/** A browser of alice, and its world. */
const alice = async (options) => {
  const world = new World();
  const browser = await loggedIn(world, options);
  const { backend } = world;
  const refreshes = () => backend.counts.get(REFRESH) ?? 0;
  return { world, browser, backend, refreshes, tab: browser.tabs[0], row: [...backend.rows.values()].at(-1) };
};

describe("a login", () => {
  it("begins a committed session, and says so once in each tab", async () => {
    const { browser, row, world } = await alice({ tabs: 2 });
    assert.match(row.commitment, /^[\w-]{22}$/);
    assert.deepEqual(browser.tabs.map(({ events }) => events), [
      [{ type: "created", here: true, session: row.session }],
      [{ type: "created", here: false, session: row.session }],
    ]);
    assert.equal(await world.until(browser.tabs[1].client.doesSessionExist()), true);
  });

  it("that replaces a session begins a committed one with an opening of its own", async () => {
    const { world, tab, row, backend } = await alice();
    await world.until(tab.client.fetch("/login", { method: "POST", headers: { user: "bob" } }));
    const bob = [...backend.rows.values()].at(-1);
    assert.ok(bob.commitment && bob.commitment !== row.commitment);
    assert.deepEqual(tab.kinds(), ["created", "created"]);
    await world.expired();
    assert.equal((await (await world.until(me(tab))).json()).user, "bob");
  });

  it("without storage begins a bearer session, which refreshes by the bearer rules", async () => {
    const { world, tab, row } = await alice({ stores: false });
    assert.equal(row.commitment, null);
    await world.expired();
    assert.equal((await world.until(me(tab))).status, 200);
    assert.deepEqual([row.generation, row.commitment], [1, null]);
  });

  it("of a page that dies is found by the next page", async () => {
    const world = new World();
    const browser = new Browser(world);
    const tab = browser.open();
    void tab.client.fetch("/login", { method: "POST", headers: { user: "alice" } });
    while (!browser.jar.has("marker")) await world.until(world.sleep(1));
    browser.kill(tab);
    const next = browser.open();
    await world.until(world.sleep(10));
    assert.deepEqual(next.kinds(), ["created"]);
    await world.expired();
    assert.equal((await world.until(me(next))).status, 200);
    assert.deepEqual(world.backend.decisions, ["advance"]);
  });
});

describe("an expired access token", () => {
  it("is refreshed once for ten calls, and each is repeated once", async () => {
    const { world, browser, tab, backend, refreshes } = await alice();
    await world.expired();
    const answers = await world.until(Promise.all(Array.from({ length: 10 }, () => me(tab))));
    assert.deepEqual(answers.map(({ status }) => status), Array(10).fill(200));
    assert.equal(refreshes(), 1);
    assert.equal(browser.counts.get("/me"), 20);
    assert.deepEqual(backend.decisions, ["advance"]);
    assert.deepEqual(tab.events.at(-1), { type: "refreshed", here: true, session: tab.events[0].session, generation: 1 });
  });

  it("is refreshed once for ten tabs", async () => {
    const { world, browser, refreshes } = await alice({ tabs: 10 });
    await world.expired();
    const answers = await world.until(Promise.all(browser.tabs.map(me)));
    assert.deepEqual(answers.map(({ status }) => status), Array(10).fill(200));
    assert.equal(refreshes(), 1);
  });

  it("is refreshed without harm by ten tabs that do not wait for each other", async () => {
    const { world, browser, backend, row } = await alice({ tabs: 10, locks: false });
    await world.expired();
    const answers = await world.until(Promise.all(browser.tabs.map(me)));
    assert.deepEqual(answers.map(({ status }) => status), Array(10).fill(200));
    assert.equal(row.generation, 1);
    assert.deepEqual(new Set(backend.decisions), new Set(["advance", "reissue"]));
  });

  it("repeats a request with its method, headers and body, a stream too", async () => {
    const { world, tab, backend } = await alice();
    const bodies = [];
    const serve = backend.serve.bind(backend);
    backend.serve = (request) => {
      if (request.path === "/me") bodies.push([request.text, request.headers.get("x-mine")]);
      return serve(request);
    };
    for (const body of ["text", new Blob(["blob"]), new Blob(["stream"]).stream()]) {
      await world.expired();
      const init = { method: "PUT", body, headers: { "x-mine": "yes" }, duplex: "half" };
      assert.equal((await world.until(tab.client.fetch("/me", init))).status, 200);
    }
    const expected = ["text", "blob", "stream"].flatMap((body) => [[body, "yes"], [body, "yes"]]);
    assert.deepEqual(bodies, expected);
  });

  it("of another session is not repeated in this one", async () => {
    const { world, browser, tab, backend } = await alice({ tabs: 2 });
    await world.expired();
    const late = { before: 5, after: 500 };
    world.trouble = (path) => (path === "/me" ? late : { before: 5, after: 5 });
    const answer = me(tab);
    await world.until(browser.tabs[1].client.fetch("/login", { method: "POST", headers: { user: "bob" } }));
    assert.equal((await world.until(answer)).status, 401);
    assert.equal(backend.counts.get("/me"), 1);
  });

  it("that always looks expired ends after three requests and two refreshes", async () => {
    const { world, browser, tab, backend, refreshes } = await alice();
    await world.expired();
    backend.lifetime = -1;
    assert.equal((await world.until(me(tab))).status, 401);
    assert.equal(browser.counts.get("/me"), 3);
    assert.equal(refreshes(), 2);
  });
});

describe("a lost answer", () => {
  for (const how of ["drop", "cut"]) {
    it(`to a refresh does no harm, ${how === "drop" ? "with its cookies" : "although its cookies came"}`, async () => {
      const { world, tab, row } = await alice();
      await world.expired();
      let lost = 0;
      world.trouble = (path) => ({ before: 5, after: path === REFRESH && lost++ === 0 ? how : 5 });
      assert.equal((await world.until(me(tab))).status, 200);
      assert.deepEqual([row.generation, row.revoked], [1, false]);
    });
  }

  it("that never comes ends in `offline` and an error of fetch, and the session lives on", async () => {
    const { world, tab, row, refreshes, browser } = await alice();
    await world.expired();
    world.trouble = (path) => ({ before: 5, after: path === REFRESH ? "drop" : 5 });
    await assert.rejects(world.until(me(tab)), TypeError);
    await assert.rejects(world.until(tab.client.attemptRefreshingSession()), TypeError);
    assert.equal(refreshes(), 10);
    assert.deepEqual(tab.kinds(), ["created", "offline", "offline"]);
    world.trouble = () => ({ before: 5, after: 5 });
    assert.equal((await world.until(me(tab))).status, 200);
    assert.deepEqual([row.generation, row.revoked, browser.counts.get("/me")], [1, false, 3]);
  });

  it("during an outage is waited for as the server asks", async () => {
    const { world, tab, backend } = await alice();
    await world.expired();
    const serve = backend.serve.bind(backend);
    const at = [];
    backend.serve = (request) => {
      if (request.path !== REFRESH) return serve(request);
      at.push(backend.now());
      if (at.length > 2) return serve(request);
      return { status: 503, problem: true, body: { code: "unavailable" }, headers: { "Retry-After": "3" } };
    };
    assert.equal((await world.until(me(tab))).status, 200);
    assert.ok(at[1] - at[0] >= 3000 && at[2] - at[1] >= 3000);
  });

  it("of a tab that died is answered again to the next tab", async () => {
    const { world, browser, tab, backend, row } = await alice({ tabs: 2 });
    await world.expired();
    world.trouble = () => ({ before: 5, after: 500 });
    void me(tab);
    while (row.generation === 0) await world.until(world.sleep(1));
    browser.kill(tab);
    world.trouble = () => ({ before: 5, after: 5 });
    assert.equal((await world.until(me(browser.tabs[0]))).status, 200);
    assert.deepEqual([row.generation, row.revoked], [1, false]);
    assert.deepEqual(backend.decisions, ["advance", "reissue"]);
  });
});

describe("cookies that go back", () => {
  it("are mended, by one generation or by three", async () => {
    const { world, browser, tab, row } = await alice();
    for (const steps of [1, 3]) {
      const old = new Map(browser.jar);
      for (let step = 0; step < steps; step++) {
        await world.expired();
        assert.equal((await world.until(me(tab))).status, 200);
      }
      const { generation } = row;
      await world.expired();
      browser.jar = old;
      assert.equal((await world.until(me(tab))).status, 200);
      assert.deepEqual([row.generation, row.revoked], [generation, false]);
    }
  });
});

describe("the end of a session", () => {
  it("by sign-out reaches the server and the other tabs", async () => {
    const { world, browser, tab, row } = await alice({ tabs: 2 });
    await world.until(tab.client.signOut());
    await world.until(world.sleep(500));
    assert.equal(row.revoked, true);
    for (const { client } of browser.tabs) assert.equal(await world.until(client.doesSessionExist()), false);
    assert.deepEqual(browser.tabs.map(({ events }) => events.at(-1)), [
      { type: "signedOut", here: true, session: row.session },
      { type: "signedOut", here: false, session: row.session },
    ]);
    await world.until(tab.client.signOut());
    assert.equal(tab.events.length, 2);
  });

  it("by sign-out without an answer has not come", async () => {
    const { world, tab, row } = await alice();
    world.trouble = () => ({ before: "drop" });
    await assert.rejects(world.until(tab.client.signOut()), TypeError);
    assert.equal(await world.until(tab.client.doesSessionExist()), true);
    assert.equal(row.revoked, false);
  });

  it("by a route of the application is noticed", async () => {
    const { world, browser, tab } = await alice();
    browser.jar.clear();
    await world.until(me(tab));
    await world.until(world.sleep(500));
    assert.deepEqual(tab.kinds(), ["created", "signedOut"]);
  });

  it("by the server is `expired`, not `signedOut`, in each tab", async () => {
    const { world, browser, row } = await alice({ tabs: 3 });
    row.revoked = true;
    await world.expired();
    const answers = await world.until(Promise.all(browser.tabs.flatMap((tab) => [me(tab), me(tab)])));
    await world.until(world.sleep(500));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([401]));
    for (const { events } of browser.tabs) {
      const [, end, ...more] = events;
      assert.deepEqual({ ...end, here: undefined }, { type: "expired", here: undefined, session: row.session, reason: "session_revoked" });
      assert.deepEqual(more, []);
    }
  });

  it("by storage that is gone is a new sign-in, no theft", async () => {
    const { world, browser, tab, row, backend } = await alice();
    await world.expired();
    await world.until(me(tab));
    browser.memory = { sessions: [], logins: [] };
    await world.expired();
    assert.equal((await world.until(me(tab))).status, 401);
    assert.deepEqual(backend.decisions, ["advance", "proof_required"]);
    assert.equal(row.revoked, true);
    assert.deepEqual(tab.events.at(-1), { type: "expired", here: true, session: row.session, reason: "proof_required" });
    assert.equal(await world.until(tab.client.doesSessionExist()), false);
  });
});

describe("a thief", () => {
  it("with the cookies refreshes nothing, and ends nothing by asking", async () => {
    const { world, browser, backend, tab, row } = await alice();
    const thief = browser.copy({ memory: false }).open();
    await world.expired();
    const signout = backend.serve.bind(backend);
    // A thief's client does not sign out when it must give up.
    backend.serve = (request) => (request.path.endsWith("signout") ? { status: 204 } : signout(request));
    assert.equal((await world.until(me(thief))).status, 401);
    assert.deepEqual(backend.decisions, ["proof_required"]);
    assert.deepEqual([row.generation, row.revoked], [0, false]);
    assert.equal((await world.until(me(tab))).status, 200);
  });

  it("with cookies and storage is seen when the owner comes back", async () => {
    const { world, browser, tab, backend, row } = await alice();
    const thief = browser.copy().open();
    for (let step = 0; step < 3; step++) {
      await world.expired();
      assert.equal((await world.until(me(thief))).status, 200);
    }
    assert.equal((await world.until(me(tab))).status, 401);
    assert.equal(row.revoked, true);
    assert.deepEqual(backend.decisions.slice(3), ["superseded", "theft"]);
    assert.deepEqual(tab.events.at(-1), { type: "theft", here: true, session: row.session, kind: "forked" });
    await world.expired();
    assert.equal((await world.until(me(thief))).status, 401);
  });
});

describe("answers that are no end", () => {
  it("are reported, and nothing is cleared", async () => {
    const { world, tab, backend } = await alice();
    await world.expired();
    const serve = backend.serve.bind(backend);
    backend.serve = (request) =>
      request.path === REFRESH ? { status: 401, problem: true, body: { code: "token_scope_mismatch" } } : serve(request);
    assert.equal((await world.until(me(tab))).status, 401);
    const error = { name: "RekindleError", code: "token_scope_mismatch", status: 401 };
    await assert.rejects(world.until(tab.client.attemptRefreshingSession()), error);
    assert.deepEqual(tab.kinds(), ["created", "failed", "failed"]);
    assert.equal(await world.until(tab.client.doesSessionExist()), true);
  });

  it("but `superseded` for ever end, too", async () => {
    const { world, tab, backend, refreshes, row } = await alice();
    await world.expired();
    const serve = backend.serve.bind(backend);
    const named = { session_id: row.session, generation: 9, presented_generation: 0, commitment: "A".repeat(21) + "Q" };
    backend.serve = (request) => {
      if (request.path !== REFRESH) return serve(request);
      serve(request);
      return { status: 409, problem: true, body: { code: "superseded", ...named } };
    };
    await assert.rejects(world.until(me(tab)), TypeError);
    assert.equal(refreshes(), 40);
  });
});

describe("requests that are not the session's", () => {
  const sent = async (input, init) => {
    const { world, browser, tab } = await alice();
    const seen = [];
    const serve = world.backend.serve.bind(world.backend);
    world.backend.serve = (request) => (seen.push(Object.fromEntries(request.headers)), serve(request));
    await world.until(tab.client.fetch(input, init));
    return { headers: seen[0], counts: browser.counts };
  };

  it("of other origins stay as they are", async () => {
    for (const url of ["https://other.example/me", "https://shop.example.evil.example/me", "http://shop.example/me"]) {
      assert.deepEqual((await sent(url, { method: "POST" })).headers, {});
    }
    assert.ok((await sent(`${ORIGIN}/me`, { method: "POST" })).headers["rekindle-proof"]);
  });

  it("and those with their own Authorization, too", async () => {
    const { headers } = await sent("/me", { method: "POST", headers: { Authorization: "Basic eDp5" } });
    assert.deepEqual(headers, { authorization: "Basic eDp5" });
  });
});

describe("header mode", () => {
  const settings = { mode: "header" };

  it("keeps tokens in the storage, and sends them in headers alone", async () => {
    const { world, browser, tab, row } = await alice({ settings });
    assert.equal(browser.jar.size, 0);
    assert.equal(browser.memory.tokens.position.session, row.session);
    await world.expired();
    assert.equal((await world.until(me(tab))).status, 200);
    assert.deepEqual([row.generation, browser.memory.tokens.position.generation], [1, 1]);
    assert.deepEqual(tab.kinds(), ["created", "refreshed"]);
    await world.until(tab.client.signOut());
    assert.equal(browser.memory.tokens, undefined);
    assert.equal((await world.until(me(tab))).status, 401);
  });

  it("refreshes once for ten tabs", async () => {
    const { world, browser, refreshes } = await alice({ tabs: 10, settings });
    await world.expired();
    const answers = await world.until(Promise.all(browser.tabs.map(me)));
    assert.deepEqual(answers.map(({ status }) => status), Array(10).fill(200));
    assert.equal(refreshes(), 1);
  });

  it("does not put a late refresh's tokens over another login's", async () => {
    const { world, browser, tab } = await alice({ settings });
    await world.expired();
    world.trouble = (path) => ({ before: 5, after: path === REFRESH ? 500 : 5 });
    const late = tab.client.attemptRefreshingSession();
    await world.until(tab.client.fetch("/login", { method: "POST", headers: { user: "bob" } }));
    await world.until(late);
    assert.equal((await (await world.until(me(tab))).json()).user, "bob");
    assert.equal(browser.memory.tokens.position.generation, 0);
  });
});

describe("a token against CSRF", () => {
  it("goes with what changes something, and is fetched again if it was lost", async () => {
    const { world, tab, backend, browser, row, refreshes } = await alice();
    const serve = backend.serve.bind(backend);
    const sent = [];
    backend.serve = (request) => {
      const token = `${row.session}.${row.generation}`;
      if (request.path === "/me" && request.headers.get("anti-csrf") !== token) {
        sent.push(request.headers.get("anti-csrf"));
        return { status: 403, problem: true, body: { code: "csrf_failed" } };
      }
      const served = serve(request);
      if (request.path === REFRESH) served.headers = { "anti-csrf": `${row.session}.${row.generation}` };
      return served;
    };
    const change = () => world.until(tab.client.fetch("/me", { method: "POST" }));
    assert.equal((await change()).status, 200);
    assert.equal((await change()).status, 200);
    assert.deepEqual([sent, refreshes()], [[null], 1]);
    browser.memory.sessions[0].csrf = "wrong";
    assert.equal((await change()).status, 403);
    assert.equal(refreshes(), 1);
  });
});

it("a page that comes back from the cache of the back button notices what happened meanwhile", async () => {
  const { world, browser, tab, row } = await alice({ tabs: 2 });
  browser.tabs[1].listeners.length = 0;
  await world.until(tab.client.signOut());
  await world.until(browser.tabs[1].client.resume());
  await world.until(world.sleep(500));
  assert.deepEqual(browser.tabs[1].events.at(-1), { type: "signedOut", here: true, session: row.session });
});

it("a call that is given up is rejected at once", async () => {
  const { world, tab } = await alice();
  await world.expired();
  world.trouble = (path) => ({ before: path === REFRESH ? 5000 : 5, after: 5 });
  const abort = new AbortController();
  const call = tab.client.fetch("/me", { signal: abort.signal });
  await world.until(world.sleep(1000));
  abort.abort();
  const before = world.backend.now();
  await assert.rejects(world.until(call), { name: "AbortError" });
  assert.equal(world.backend.now(), before);
});

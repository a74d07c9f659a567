// The entry for apps, on a storage like AsyncStorage.

import assert from "node:assert/strict";
import { beforeEach, it } from "node:test";

import { rekindle } from "rekindle-web/react-native";

import { Backend } from "./model.js";

const ORIGIN = "https://api.shop.example";

let now, backend, items, storage;
beforeEach(() => {
  now = 1_800_000_000_000;
  backend = new Backend(() => now);
  items = new Map();
  storage = {
    getItem: async (key) => items.get(key) ?? null,
    setItem: async (key, value) => void items.set(key, value),
  };
  globalThis.fetch = async (input, init) => {
    const request = new Request(input, init);
    const { status, body, headers, problem } = backend.serve({
      path: new URL(request.url).pathname,
      headers: request.headers,
      cookies: new Map(),
    });
    const type = { "content-type": problem ? "application/problem+json" : "application/json" };
    return new Response(body && JSON.stringify(body), { status, headers: { ...type, ...headers } });
  };
});

const logIn = async () => {
  const session = rekindle({ origins: [ORIGIN], storage });
  await session.fetch(`${ORIGIN}/login`, { method: "POST", headers: { user: "alice" } });
  return session;
};

it("logs in, refreshes once for ten calls, and is still signed in after the app was closed", async () => {
  const first = await logIn();
  assert.equal([...backend.rows.values()][0].commitment.length, 22);
  now += backend.lifetime;
  const answers = await Promise.all(Array.from({ length: 10 }, () => first.fetch(`${ORIGIN}/me`)));
  assert.deepEqual(answers.map(({ status }) => status), Array(10).fill(200));
  assert.deepEqual(backend.decisions, ["advance"]);
  const next = rekindle({ origins: [ORIGIN], storage });
  assert.equal(await next.doesSessionExist(), true);
  now += backend.lifetime;
  assert.equal((await next.fetch(`${ORIGIN}/me`)).status, 200);
  assert.deepEqual(backend.decisions, ["advance", "advance"]);
});

it("keeps everything under one key, and nothing of it after a sign-out", async () => {
  const session = await logIn();
  assert.deepEqual([...items.keys()], ["rekindle"]);
  await session.signOut();
  const { tokens, sessions } = JSON.parse(items.get("rekindle"));
  assert.deepEqual([tokens, sessions], [undefined, []]);
  assert.equal(await session.doesSessionExist(), false);
});

it("sends no refresh whose opening it could not store", async () => {
  const session = await logIn();
  now += backend.lifetime;
  storage.setItem = async () => {
    throw new Error("the disk is full");
  };
  await assert.rejects(session.fetch(`${ORIGIN}/me`), TypeError);
  assert.equal(backend.counts.get("/auth/session/refresh"), undefined);
});

it("sends tokens to its origins alone", async () => {
  const session = await logIn();
  const seen = [];
  const serve = backend.serve.bind(backend);
  backend.serve = (request) => (seen.push(request.headers.get("authorization")), serve(request));
  for (const url of ["https://other.example/me", `${ORIGIN}.evil.example/me`, `${ORIGIN}@evil.example/me`, `${ORIGIN}/me`]) {
    await session.fetch(url).catch(() => seen.push("refused"));
  }
  assert.deepEqual(seen.map((value) => value?.slice(0, 6) ?? null), [null, null, "refuse", "Bearer"]);
});

import assert from "node:assert/strict";
import { it } from "node:test";

import { ATTEMPTS, backoff } from "../dist/backoff.js";

it("waits longer each time, half of it at random", () => {
  const waits = (random) => Array.from({ length: ATTEMPTS - 1 }, (_, attempt) => backoff(attempt, random));
  assert.deepEqual(waits(0), [150, 300, 600, 1200]);
  assert.deepEqual(waits(0.5), [225, 450, 900, 1800]);
});

it("gives up after the last attempt", () => {
  assert.equal(backoff(ATTEMPTS - 1, 0.5), undefined);
  assert.equal(backoff(ATTEMPTS, 0.5), undefined);
});

it("waits as long as the server asks, up to ten seconds", () => {
  assert.equal(backoff(0, 0.5, 3), 3000);
  assert.equal(backoff(3, 0.5, 1), 1800);
  assert.equal(backoff(0, 0.5, 10), 10_000);
  assert.equal(backoff(0, 0.5, 11), undefined);
});

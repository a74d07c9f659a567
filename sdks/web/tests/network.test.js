// Random trouble: late and lost messages, tabs that die, cookies that arrive in any order. No honest client is ever signed out.

import assert from "node:assert/strict";
import { it } from "node:test";

import { loggedIn, trouble, World } from "./world.js";

const RUNS = process.env.REKINDLE_FULL ? 1000 : 40;
const ROUNDS = 15;
/** No call needs more: it is sent three times, and refreshes twice, with five tries of eight rounds. */
const MOST = 2 * 5 * 8;

/** One profile's life; throws if its user was harmed. */
async function live(seed) {
  const world = new World(seed);
  // Longer than what an answer can be late: a token that is old when it comes is no use to anybody.
  world.backend.lifetime = 60_000;
  const settings = { mode: seed % 4 === 0 ? "header" : "cookie" };
  const browser = await loggedIn(world, { tabs: 3, locks: seed % 3 !== 0, settings });
  const { backend } = world;
  const [row] = backend.rows.values();
  let calls = 0;
  for (let round = 0; round < ROUNDS; round++) {
    world.trouble = trouble(world);
    const wait = world.random();
    if (wait < 0.7) await world.expired();
    else if (wait < 0.8) await world.until(world.sleep(3_600_000));
    const asking = browser.tabs.flatMap(({ client }) =>
      Array.from({ length: 1 + Math.floor(world.random() * 3) }, async () => {
        calls += 1;
        const answer = await client.fetch("/me").catch((error) => error);
        if (!(answer instanceof TypeError)) assert.equal(answer.status, 200);
      }),
    );
    if (world.random() < 0.3) {
      const victim = browser.tabs[Math.floor(world.random() * browser.tabs.length)];
      await world.until(world.sleep(world.random() * 60));
      browser.kill(victim);
      browser.open(settings);
      await world.until(world.sleep(20_000));
    } else {
      await world.until(Promise.all(asking));
    }
  }
  // Late answers come, and the network is good again.
  world.trouble = () => ({ before: 5, after: 5 });
  await world.until(world.sleep(60_000));
  for (const { client } of browser.tabs) assert.equal((await world.until(client.fetch("/me"))).status, 200);
  const events = browser.tabs.flatMap((tab) => tab.kinds());
  for (const bad of ["signedOut", "expired", "theft", "failed"]) assert.ok(!events.includes(bad), bad);
  for (const bad of ["theft", "proof_required", "invalid_proof"]) assert.ok(!backend.decisions.includes(bad), bad);
  assert.deepEqual([row.revoked, backend.rows.size], [false, 1]);
  assert.ok(browser.counts.get("/me") <= 3 * (calls + browser.tabs.length));
  const refreshes = browser.counts.get("/auth/session/refresh") ?? 0;
  assert.ok(refreshes <= MOST * (calls + browser.tabs.length), `${refreshes} refreshes for ${calls} calls`);
  return { refreshes: browser.counts.get("/auth/session/refresh"), decisions: backend.decisions, generation: row.generation };
}

it(`signs nobody out in ${RUNS} profiles on a bad network`, async (t) => {
  const first = Number(process.env.REKINDLE_SEED ?? Date.now() % 1_000_000);
  t.diagnostic(`seeds ${first} to ${first + RUNS - 1}; REKINDLE_SEED repeats them`);
  const seen = {};
  for (let seed = first; seed < first + RUNS; seed++) {
    const { decisions } = await live(seed).catch((error) => {
      error.message = `seed ${seed}: ${error.message}`;
      throw error;
    });
    for (const decision of decisions) seen[decision] = (seen[decision] ?? 0) + 1;
  }
  t.diagnostic(JSON.stringify(seen));
  for (const decision of ["advance", "reissue", "superseded"]) assert.ok(seen[decision], `never ${decision}`);
});

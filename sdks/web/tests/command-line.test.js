// The example of a command-line client, before the example backend.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const program = fileURLToPath(new URL("../examples/command-line/shop.mjs", import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-web-"));
let backend, SHOP;

before(async () => {
  const DEFINITION = JSON.stringify({ access_token: { lifetime: 1 } });
  backend = spawn(process.env.REKINDLE_BACKEND, { env: { PORT: "0", DEFINITION }, stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface(backend.stdout)) {
    SHOP = /^Listening on (http:\S+)/i.exec(line)?.[1];
    if (SHOP) break;
  }
});
after(async () => {
  fs.rmSync(folder, { recursive: true });
  const exited = backend && once(backend, "exit");
  if (backend?.kill("SIGKILL")) await exited;
});

/** A user's own commands. */
const shop = (user) => {
  const SHOP_SESSION = path.join(folder, "config", user);
  const env = { ...process.env, SHOP, SHOP_SESSION };
  const start = (...words) => execFile(process.execPath, [program, ...words], { env });
  return { SHOP_SESSION, start, run: (...words) => promisify(execFile)(process.execPath, [program, ...words], { env }) };
};

it("signs in, is known by the next commands, and signs out", async () => {
  const { run, SHOP_SESSION } = shop("alice");
  assert.equal((await run("sign-in", "alice")).stdout, "Signed in as alice.\n");
  assert.equal(fs.statSync(SHOP_SESSION).mode & 0o777, 0o700);
  assert.equal(fs.statSync(path.join(SHOP_SESSION, "session")).mode & 0o777, 0o600);
  await sleep(1100);
  // Ten at once, with an expired token: each waits for its turn, and whoever comes after a renewal uses it.
  const said = await Promise.all(Array.from({ length: 10 }, () => run("whoami")));
  for (const { stdout } of said) assert.match(stdout, /^alice, generation \d+ of session /);
  assert.equal((await run("sign-out")).stdout, "Signed out.\n");
  await assert.rejects(run("whoami"), ({ code, stderr }) => code === 1 && /^nobody is signed in/.test(stderr));
  await assert.rejects(run("dance"), ({ code }) => code === 2);
});

it("goes on after commands that were killed", async () => {
  const { run, start } = shop("bob");
  await run("sign-in", "bob");
  for (let turn = 0; turn < 6; turn++) {
    await sleep(1100);
    const killed = start("whoami");
    // A quick one may be through before.
    const exited = once(killed, "exit");
    await sleep(60 + 40 * turn);
    killed.kill("SIGKILL");
    await exited;
    assert.match((await run("whoami")).stdout, /^bob, /);
  }
});

it("shows a stolen file", async () => {
  const { run, SHOP_SESSION } = shop("carol");
  await run("sign-in", "carol");
  const thief = shop("thief");
  fs.cpSync(SHOP_SESSION, thief.SHOP_SESSION, { recursive: true });
  await sleep(1100);
  // Twice: with the second one, the server sees that the owner has what came of the first.
  await run("whoami");
  await sleep(1100);
  const { stdout } = await run("whoami");
  assert.ok(Number(/^carol, generation (\d+)/.exec(stdout)[1]) >= 2, stdout);
  const caught = await thief.run("whoami").catch((error) => error);
  assert.equal(caught.code, 1);
  assert.match(caught.stderr, /^Somebody else had this session/);
  await sleep(1100);
  await assert.rejects(run("whoami"), ({ stderr }) => /The session is over: session_revoked/.test(stderr));
});

// Versions of Node.js, worker threads and processes on one embedded store; and memory.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";

const run = promisify(execFile);
const here = path.dirname(fileURLToPath(import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-node-"));
const life = path.join(here, "programs/life.cjs");
after(() => fs.rmSync(folder, { recursive: true }));

/** Programs of other versions, as far as npm has them for this machine. */
const versions = ["node18", "node22"].map((name) => path.join(here, `../node_modules/${name}/bin/node`)).filter(fs.existsSync);

describe("on one store", () => {
  it(`lives in Node.js 18, ${process.versions.node} and 22, in processes beside each other`, async (t) => {
    const programs = [process.execPath, process.execPath, ...versions];
    const said = await Promise.all(programs.map((program) => run(program, [life, path.join(folder, "processes")])));
    for (const { stdout } of said) t.diagnostic(stdout.trim());
    assert.ok(said.every(({ stdout }) => stdout.startsWith("ok on v")));
    assert.equal(versions.length, process.platform === "linux" && process.arch === "x64" ? 2 : 0);
  });

  it("lives in worker threads", async () => {
    const workers = Array.from({ length: 4 }, () => new Worker(life, { workerData: path.join(folder, "workers") }));
    const said = workers.map(
      (worker) =>
        new Promise((resolve, reject) => {
          worker.once("message", resolve);
          worker.once("error", reject);
          worker.once("exit", (code) => reject(new Error(`a worker ended with ${code}`)));
        }),
    );
    for (const text of await Promise.all(said)) assert.match(text, /^ok on v/);
    await Promise.all(workers.map((worker) => worker.terminate()));
  });
});

const times = process.env.REKINDLE_FULL ? 10 : 1;

it(`keeps no memory over ${times * 100_000} verifications and ${times * 10_000} refreshes`, async (t) => {
  const program = path.join(here, "programs/memory.cjs");
  const args = ["--expose-gc", program, path.join(folder, "memory"), `${times * 100_000}`, `${times * 10_000}`];
  const { stdout } = await run(process.execPath, args);
  t.diagnostic(`${(Number(stdout) / 1024 / 1024).toFixed(1)} MiB more than before`);
  assert.ok(Number(stdout) < 16 * 1024 * 1024, `${stdout.trim()} bytes more`);
});

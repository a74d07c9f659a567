// What an app gets through a published SuperTokens SDK with Rekindle behind it, and where the time goes: requests per second, and the CPU
// time of the app and of the server for each. Needs what the tests of the SDKs install, and a release build; see README.md.

"use strict";

const fs = require("node:fs");
const path = require("node:path");

const target = process.env.CARGO_TARGET_DIR ?? path.join(__dirname, "../target");
process.env.REKINDLE ??= path.join(target, "release/rekindle");
process.env.SUPERTOKENS_SDKS ??= path.join(target, "supertokens-sdks");
process.env.NODE_PATH ??= path.join(process.env.SUPERTOKENS_SDKS, "node_modules");

const sdks = path.join(__dirname, "../crates/rekindle-server/tests/supertokens_sdks");
const { clients } = require(path.join(sdks, "clients"));
const { Site } = require(path.join(sdks, "site"));
const { Visitor } = require(path.join(sdks, "visitor"));

const [WARM, SECONDS, VISITORS] = [3, 5, 16];
const WANTED = ["supertokens-node 24.0.3 on express", "supertokens-python 0.31.4 on fastapi"];

/** CPU milliseconds that a process has used. */
const cpu = (pid) => {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
};

/** All visitors at once, each one thing after the other, for so many seconds; how many requests they made. */
const loop = async (visitors, seconds, step) => {
  const started = Date.now();
  let requests = 0;
  const run = async (visitor) => {
    while (Date.now() - started < seconds * 1000) {
      // Not in one expression: others count while this one waits.
      const made = await step(visitor);
      requests += made;
    }
  };
  await Promise.all(visitors.map(run));
  return requests;
};

/** `step` is given a visitor, and says how many requests it made. */
const measure = async (site, visitors, name, step) => {
  await loop(visitors, WARM, step);
  const pids = [site.app.pid, site.cores[0].pid];
  const before = pids.map(cpu);
  const started = Date.now();
  const requests = await loop(visitors, SECONDS, step);
  const seconds = (Date.now() - started) / 1000;
  const [app, server] = pids.map((pid, at) => ((cpu(pid) - before[at]) * 1000) / requests);
  console.log(`| ${name} | ${(requests / seconds).toFixed(0)} | ${app.toFixed(0)} | ${server.toFixed(0)} |`);
};

const good = ({ status, body }) => {
  if (status !== 200) throw new Error(`an app answered ${status}: ${JSON.stringify(body)}`);
  return 1;
};

const main = async () => {
  for (const name of WANTED) {
    const client = clients.find((client) => client.name === name);
    if (!client) throw new Error(`there is no client ${name} among ${clients.map(({ name }) => name).join(", ")}`);
    const site = await Site.start(client);
    try {
      console.log(`\n${name}, ${VISITORS} visitors\n\n| what a visitor does | requests/s | app CPU µs | server CPU µs |\n|---|---:|---:|---:|`);
      const visitors = Array.from({ length: VISITORS }, () => new Visitor(site.app.address, "header"));
      let users = 0;
      const login = (visitor) => visitor.ask("POST", "/login", { userId: `user-${users++}`, payload: {}, data: {} }).then(good);
      const call = (visitor) => visitor.ask("GET", "/me").then(good);
      await measure(site, visitors, "signs in", login);
      await measure(site, visitors, "calls (verified in the app)", call);
      await measure(site, visitors, "refreshes, and calls for the first time", async (visitor) => good(await visitor.refresh()) + (await call(visitor)));
    } finally {
      await site.stop();
    }
  }
};

main();

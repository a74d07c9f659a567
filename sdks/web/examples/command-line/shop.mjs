#!/usr/bin/env node
// A command-line client whose session is in a file: `npm install rekindle-web && node shop.mjs sign-in alice`, then `whoami` and `sign-out`.
//
// `SHOP` is the backend, http://localhost:3000 by default (`cargo run -p rekindle-client --example axum`, and the other examples), and
// `SHOP_SESSION` the session's folder, `~/.config/shop` by default. It holds what a thief would need: only its owner may read it.

import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { rekindle } from "rekindle-web/react-native";

const SHOP = process.env.SHOP ?? "http://localhost:3000";
const FOLDER = process.env.SHOP_SESSION ?? path.join(os.homedir(), ".config/shop");
// There is one file. While a command has it, it bears the number of its process.
const [free, taken] = [path.join(FOLDER, "session"), path.join(FOLDER, `session.${process.pid}`)];

/** Renames; whether it was there to be renamed, and its new place free. */
const rename = (from, to) =>
  fs.rename(from, to).then(
    () => true,
    (error) => (["ENOENT", "ENOTEMPTY", "EEXIST"].includes(error.code) ? false : Promise.reject(error)),
  );

/** Makes the folder with its file in one step, unless another command does. */
const begin = async () => {
  await fs.mkdir(path.dirname(FOLDER), { recursive: true });
  const made = await fs.mkdtemp(`${FOLDER}.`);
  await fs.writeFile(path.join(made, "session"), "null", { mode: 0o600 });
  if (!(await rename(made, FOLDER))) await fs.rm(made, { recursive: true });
};

/** Waits until no other command has the session: two clients on one storage would not wait for each other. */
const take = async () => {
  await fs.access(FOLDER).catch(begin);
  while (!(await rename(free, taken))) {
    for (const name of await fs.readdir(FOLDER)) {
      const holder = /^session\.(\d+)$/.exec(name)?.[1];
      // Of a command that was killed; one of those who see it gives it back.
      if (holder && !isAlive(Number(holder))) await rename(path.join(FOLDER, name), free);
    }
    await sleep(20);
  }
};

const isAlive = (pid) => {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error.code !== "ESRCH";
  }
};

/** The file that was taken. What was written is there after a crash: a new file takes the old one's place. */
const storage = {
  getItem: () => fs.readFile(taken, "utf8"),
  async setItem(_, value) {
    const aside = await fs.open(`${FOLDER}/new`, "w", 0o600);
    await aside.writeFile(value);
    await aside.sync();
    await aside.close();
    await fs.rename(`${FOLDER}/new`, taken);
  },
};

const commands = {
  async "sign-in"(session, user) {
    const body = new URLSearchParams({ user });
    // With an answer that leads to a page, which a command does not need.
    const answer = await session.fetch(`${SHOP}/login`, { method: "POST", body, redirect: "manual" });
    if (answer.status >= 400) throw new Error(`not signed in: ${await answer.text()}`);
    console.log(`Signed in as ${user}.`);
  },
  async whoami(session) {
    const answer = await session.fetch(`${SHOP}/api/me`);
    const said = await answer.json();
    if (!answer.ok) throw new Error(`nobody is signed in: ${said.code}`);
    console.log(`${said.user_id}, generation ${said.generation} of session ${said.session_id}`);
  },
  async "sign-out"(session) {
    await session.signOut();
    console.log("Signed out.");
  },
};

const [, , name, ...values] = process.argv;
const command = commands[name];
if (!command || command.length !== 1 + values.length) {
  console.error("usage: shop.mjs sign-in <user> | whoami | sign-out");
  process.exit(2);
}
await take();
// Not before: a client reads the storage, and writes to it, from its first moment on.
const session = rekindle({ origins: [new URL(SHOP).origin], storage });
session.on("theft", () => console.error("Somebody else had this session. It is over; sign in again."));
session.on("expired", ({ reason }) => console.error(`The session is over: ${reason}`));
try {
  await command(session, ...values);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
await rename(taken, free);
// The client still listens for an answer that it took for lost.
process.exit();

#!/usr/bin/env node
// A command-line client whose session is in a file: `npm install rekindle-web && node shop.mjs sign-in alice`, then `whoami` and `sign-out`.
//
// `SHOP` is the backend, http://localhost:3000 by default (`cargo run -p rekindle-client --example axum`, and the other examples), and
// `SHOP_SESSION` the file, `~/.config/shop/session.json` by default. It holds what a thief would need: only its owner may read it.

import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { rekindle } from "rekindle-web/react-native";

const SHOP = process.env.SHOP ?? "http://localhost:3000";
const FILE = process.env.SHOP_SESSION ?? path.join(os.homedir(), ".config/shop/session.json");

/** The file, as a storage. What was written is there after a crash: a new file takes the old one's place. */
const storage = {
  getItem: () => fs.readFile(FILE, "utf8").catch((error) => (error.code === "ENOENT" ? null : Promise.reject(error))),
  async setItem(_, value) {
    const aside = await fs.open(`${FILE}.new`, "w", 0o600);
    await aside.writeFile(value);
    await aside.sync();
    await aside.close();
    await fs.rename(`${FILE}.new`, FILE);
  },
};

/** One command at a time has the session: two clients on one storage would not wait for each other. */
const alone = async (work) => {
  await fs.mkdir(path.dirname(FILE), { recursive: true, mode: 0o700 });
  const [lock, own] = [`${FILE}.lock`, `${FILE}.lock.${process.pid}`];
  // Linked once it says whose it is: a lock without a holder would be nobody's to take away.
  await fs.writeFile(own, String(process.pid));
  for (;;) {
    try {
      await fs.link(own, lock);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      await abandoned(lock);
    }
  }
  await fs.rm(own);
  try {
    return await work();
  } finally {
    await fs.rm(lock, { force: true });
  }
};

/** Waits a moment, or removes the lock of a command that was killed. */
const abandoned = async (lock) => {
  const holder = Number(await fs.readFile(lock, "utf8").catch(() => ""));
  try {
    if (holder) process.kill(holder, 0);
    await sleep(20);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
    // Of two who see this, only one takes it away.
    const gone = `${lock}.gone.${process.pid}`;
    await fs.rename(lock, gone).then(() => fs.rm(gone)).catch(() => {});
  }
};

const session = rekindle({ origins: [new URL(SHOP).origin], storage });
session.on("theft", () => console.error("Somebody else had this session. It is over; sign in again."));
session.on("expired", ({ reason }) => console.error(`The session is over: ${reason}`));

const commands = {
  async "sign-in"(user) {
    const body = new URLSearchParams({ user });
    // With an answer that leads to a page, which a command does not need.
    const answer = await session.fetch(`${SHOP}/login`, { method: "POST", body, redirect: "manual" });
    if (answer.status >= 400) throw new Error(`not signed in: ${await answer.text()}`);
    console.log(`Signed in as ${user}.`);
  },
  async whoami() {
    const answer = await session.fetch(`${SHOP}/api/me`);
    const said = await answer.json();
    if (!answer.ok) throw new Error(`nobody is signed in: ${said.code}`);
    console.log(`${said.user_id}, generation ${said.generation} of session ${said.session_id}`);
  },
  async "sign-out"() {
    await session.signOut();
    console.log("Signed out.");
  },
};

const [, , name, ...values] = process.argv;
const command = commands[name];
if (!command || command.length !== values.length) {
  console.error("usage: shop.mjs sign-in <user> | whoami | sign-out");
  process.exit(2);
}
await alone(() => command(...values)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
// The client still listens for an answer that it took for lost.
process.exit();

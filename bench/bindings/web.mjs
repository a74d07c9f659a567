// What sessions cost an application: a page that says who calls, with a verified session and without any, on Express and FastAPI; and the
// renewal of a session through Express, beside other libraries on a store of their own. Requests per second, and the CPU time of the
// application and of its database for each. `run` prepares what it needs; see ../README.md.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { Client } from "undici";

const [ROUNDS, WARM, SECONDS, VISITORS] = [5, 1, 4, 16];
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-bench-"));
const here = import.meta.dirname;
const { PYTHON } = process.env;
const EXPRESS = ["--disable-warning=ExperimentalWarning", path.join(here, "apps/express.mjs")];
const started = [];

/** A process of its own, which ends with this one. */
const start = async (command, args, env = {}) => {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, FOLDER: folder, ...env } });
  started.push(child);
  return child;
};

const application = async (command, args, env) => {
  const child = await start(command, args, env);
  const [port] = await once(createInterface(child.stdout), "line");
  return { pid: child.pid, port: Number(port), stop: () => child.kill() };
};

const freePort = async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
};

const answers = async (port) => {
  for (let tries = 0; tries < 300; tries++) {
    const socket = net.connect(port, "127.0.0.1");
    try {
      await once(socket, "connect");
      return;
    } catch {
      await sleep(100);
    } finally {
      socket.destroy();
    }
  }
  throw new Error(`nothing listens on port ${port}`);
};

const redis = async () => {
  const port = await freePort();
  const child = await start("redis-server", ["--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "", "--appendonly", "yes"].map(String));
  child.stdout.resume();
  await answers(port);
  return { pid: child.pid, env: { REDIS_PORT: port } };
};

const mariadb = async () => {
  const [port, data] = [await freePort(), path.join(folder, "mariadb")];
  execFileSync("mariadb-install-db", ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", `--datadir=${data}`]);
  const socket = path.join(data, "socket");
  const child = await start("mariadbd", ["--no-defaults", "--user=root", `--datadir=${data}`, "--bind-address=127.0.0.1", `--port=${port}`, `--socket=${socket}`, `--log-error=${data}.log`]);
  child.stdout.resume();
  await answers(port);
  execFileSync("mariadb", ["--no-defaults", `--socket=${socket}`, "--user=root", "--execute=CREATE DATABASE auth"]);
  return { pid: child.pid, env: { MARIADB_PORT: port } };
};

/** CPU milliseconds that a process has used. */
const cpu = (pid) => {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
};

/** A visitor with cookies, on a connection of its own. */
class Visitor {
  #client;
  cookies = new Map();

  constructor({ port }) {
    this.#client = new Client(`http://localhost:${port}`, { connect: { host: "127.0.0.1" } });
  }

  get cookie() {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  async ask(method, path, more = {}) {
    const sent = { "sec-fetch-site": "same-origin", cookie: this.cookie, ...more };
    const { statusCode, headers, body } = await this.#client.request({ method, path, headers: sent });
    const content = await body.text();
    if (statusCode !== 200) throw new Error(`${method} ${path} answered ${statusCode}: ${content}`);
    for (const line of [headers["set-cookie"] ?? []].flat()) {
      const [pair] = line.split(";");
      this.cookies.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
    }
    return content && JSON.parse(content);
  }
}

const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** Requests per second, and CPU microseconds of the application for each, from so many connections that send the same. */
const pressed = ({ pid, port }, cookie) => {
  const wrk = (seconds) =>
    execFileSync("wrk", ["-t1", `-c${VISITORS}`, `-d${seconds}s`, "-H", "sec-fetch-site: same-origin", "-H", `cookie: ${cookie}`, `http://127.0.0.1:${port}/me`]).toString();
  wrk(WARM);
  const before = cpu(pid);
  const told = wrk(SECONDS);
  if (/Non-2xx/.test(told)) throw new Error(`the application refused: ${told}`);
  const [requests] = told.match(/(\d+) requests in/)[1].split();
  return { rate: Number(told.match(/Requests\/sec:\s+([\d.]+)/)[1]), micros: ((cpu(pid) - before) * 1000) / Number(requests) };
};

const verified = async (name, command, args) => {
  const apps = [await application(command, [...args, "rekindle"]), await application(command, [...args, "nothing"])];
  const visitor = new Visitor(apps[0]);
  await visitor.ask("POST", "/login?user=user-0");
  const [asked, plain] = [await visitor.ask("GET", "/me"), await new Visitor(apps[1]).ask("GET", "/me")];
  if (JSON.stringify(asked) !== JSON.stringify(plain)) throw new Error(`${JSON.stringify(asked)} is not ${JSON.stringify(plain)}`);
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push(apps.map((app) => pressed(app, visitor.cookie)));
  const [[rate, micros], [plainRate, plainMicros]] = [0, 1].map((at) => ["rate", "micros"].map((what) => median(rounds.map((round) => round[at][what]))));
  const reached = median(rounds.map(([ours, none]) => ours.rate / none.rate));
  console.log(`| ${name} | ${rate.toFixed(0)} | ${plainRate.toFixed(0)} | ${reached.toFixed(2)} | ${micros.toFixed(0)} | ${plainMicros.toFixed(0)} |`);
  apps.forEach((app) => app.stop());
};

const renewed = async (kind, on, database, refresh) => {
  const { pid: below, env } = (await database?.()) ?? {};
  const app = await application(process.execPath, [...EXPRESS, kind], env);
  const visitors = Array.from({ length: VISITORS }, () => new Visitor(app));
  await Promise.all(visitors.map((visitor, at) => visitor.ask("POST", `/login?user=user-${at}`)));
  const loop = async (seconds) => {
    const end = Date.now() + seconds * 1000;
    let requests = 0;
    const run = async (visitor) => {
      while (Date.now() < end) {
        await refresh(visitor);
        requests += 1;
      }
    };
    await Promise.all(visitors.map(run));
    return requests;
  };
  await loop(WARM);
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const pids = [app.pid, below].filter(Boolean);
    const [before, began] = [pids.map(cpu), Date.now()];
    const requests = await loop(SECONDS);
    const [own, theirs = 0] = pids.map((pid, at) => ((cpu(pid) - before[at]) * 1000) / requests);
    rounds.push({ rate: (requests * 1000) / (Date.now() - began), own, theirs });
  }
  // Still the same user.
  for (const [at, visitor] of visitors.entries()) {
    const { user } = await visitor.ask("GET", "/me");
    if (user !== `user-${at}`) throw new Error(`${kind} takes user-${at} for ${user}`);
  }
  const [rate, own, theirs] = ["rate", "own", "theirs"].map((what) => median(rounds.map((round) => round[what])));
  console.log(`| ${kind} | ${on} | ${rate.toFixed(0)} | ${own.toFixed(0)} | ${below ? theirs.toFixed(0) : ""} |`);
  app.stop();
};

try {
  console.log(`Node.js ${process.versions.node}, ${VISITORS} connections, the median of ${ROUNDS} rounds\n`);
  console.log("| a page that says who calls | with a session, /s | without, /s | of that | CPU µs with | without |\n|---|---:|---:|---:|---:|---:|");
  await verified("Express", process.execPath, EXPRESS);
  await verified("FastAPI, uvicorn", PYTHON, [path.join(here, "apps/fastapi_app.py")]);
  console.log("\n| a session is renewed, through Express | on | /s | application µs | database µs |\n|---|---|---:|---:|---:|");
  await renewed("rekindle", "SQLite, each flushed", null, (visitor) => visitor.ask("POST", "/auth/session/refresh", { "rekindle-request": "1" }));
  await renewed("express-session", "Redis, flushed each second", redis, (visitor) => visitor.ask("POST", "/refresh"));
  await renewed("better-auth", "SQLite, each flushed", null, (visitor) => visitor.ask("GET", "/api/auth/get-session"));
  await renewed("supertokens-node-mysql-ref-jwt", "MariaDB, each flushed", mariadb, (visitor) => visitor.ask("POST", "/refresh"));
} finally {
  started.forEach((child) => child.kill());
  await Promise.all(started.map((child) => child.exitCode === null && child.signalCode === null && once(child, "exit")));
  fs.rmSync(folder, { recursive: true, maxRetries: 5 });
}

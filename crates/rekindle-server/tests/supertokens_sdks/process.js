// Programs that a test starts and stops.

"use strict";

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { createInterface } = require("node:readline");

/** A program, when it has said where it listens. What it writes to standard error is shown if it fails. */
exports.start = async (command, args, options) => {
  const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const keep = (text) => (said = (said + text).slice(-20_000));
  child.stderr.setEncoding("utf8").on("data", keep);
  const address = await new Promise((resolve, reject) => {
    createInterface(child.stdout).on("line", (line) => {
      const [, address] = /^Listening on (http:\S+)/.exec(line) ?? [];
      if (address) resolve(address);
      else keep(`${line}\n`);
    });
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${command} ${args.join(" ")} ended with ${code}: ${said}`)));
  });
  return {
    address,
    pid: child.pid,
    said: () => said,
    /** Ends it at once. */
    kill: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
};

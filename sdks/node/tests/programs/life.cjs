// A session's life on the store in the folder that it is told, beside others who do the same: `node life.cjs <folder>`; or as a worker.

"use strict";

const assert = require("node:assert/strict");
const { isMainThread, parentPort, workerData } = require("node:worker_threads");

const { Rekindle } = require("rekindle");

const main = async () => {
  const dataDir = isMainThread ? process.argv[2] : workerData;
  const rekindle = await Rekindle.embedded({ dataDir, development: true });
  const ended = new Set();
  rekindle.onRevoked(({ sessionId }) => ended.add(sessionId));
  for (let round = 0; round < 20; round++) {
    const first = await rekindle.start({ userId: `user-${process.pid}` });
    const second = await rekindle.refresh({ refreshToken: first.refreshToken });
    assert.equal((await rekindle.verify(second.accessToken)).sessionId, first.session.id);
    if (round % 2) await rekindle.revoke(first.session.id);
    else await rekindle.signOut(second.refreshToken);
    await assert.rejects(rekindle.verify(second.accessToken), { code: "session_revoked" });
  }
  const said = `ok on ${process.version}`;
  if (isMainThread) console.log(said);
  else parentPort.postMessage(said);
};

main();

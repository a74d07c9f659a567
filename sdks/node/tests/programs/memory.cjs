// How much memory is left over: `node --expose-gc memory.cjs <folder> <verifications> <refreshes>` prints bytes.

"use strict";

const { Rekindle } = require("rekindle");

const [, , dataDir, verifications, refreshes] = process.argv;

const main = async () => {
  const rekindle = await Rekindle.embedded({ dataDir, development: true });
  const web = rekindle.web({ development: true });
  let { accessToken, refreshToken } = await rekindle.start({ userId: "alice" });
  const headers = [["host", "localhost"], ["authorization", `Bearer ${accessToken}`]];
  const round = async (verified, refreshed) => {
    for (let at = 0; at < verified; at++) {
      await rekindle.verify(accessToken, at % 2 ? { trust: "fail-closed" } : undefined);
      if (at % 10 === 0) {
        await web.visit({ method: "GET", path: "/", headers }).session();
        // Requests come in turns of the event loop, and what was collected is given back in them.
        await new Promise(setImmediate);
      }
      if (at % 10 === 1) await rekindle.verify("forged").catch(() => {});
    }
    // Many at once, each of its own session.
    const one = async () => {
      let { refreshToken } = await rekindle.start({ userId: "bob" });
      for (let at = 0; at < refreshed / 50; at++) ({ refreshToken } = await rekindle.refresh({ refreshToken }));
    };
    await Promise.all(Array.from({ length: 50 }, one));
    global.gc();
    await new Promise((resolve) => setTimeout(resolve, 200));
    global.gc();
    return process.memoryUsage().rss;
  };
  // What grows to its size once, caches above all, is no leak.
  const before = await round(Number(verifications), Number(refreshes));
  ({ refreshToken } = await rekindle.refresh({ refreshToken }));
  console.log((await round(Number(verifications), Number(refreshes))) - before);
};

main();

// An app without a framework: Node's own server. The SDK gives and takes tokens, the app keeps them in cookies.

"use strict";

const http = require("node:http");
const { json } = require("node:stream/consumers");

module.exports = (sdk, routes) =>
  http.createServer(async (req, res) => {
    const url = new URL(req.url, "http://app");
    const [, , answer] = routes.find(([m, p]) => m === req.method && p === url.pathname) ?? [];
    const say = (status, said) => {
      res.writeHead(status, { "content-type": "application/json" });
      res.end(JSON.stringify(said));
    };
    if (!answer) return say(404, {});
    try {
      const body = req.headers["content-type"] === "application/json" ? await json(req) : undefined;
      say(200, await answer({ req, res, body, query: Object.fromEntries(url.searchParams) }));
    } catch (error) {
      const { status, message } = await sdk.refusal(error, res);
      say(status, { message });
    }
  });

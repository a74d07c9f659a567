// An app on Koa.

"use strict";

const Koa = require("koa");
const { json } = require("node:stream/consumers");

module.exports = (sdk, routes) => {
  const app = new Koa();
  app.use(async (ctx, next) => {
    try {
      await next();
    } catch (error) {
      ctx.status = 500;
      ctx.body = String(error);
    }
  });
  app.use(sdk.koa());
  app.use(async (ctx) => {
    const [, , answer] = routes.find(([method, path]) => method === ctx.method && path === ctx.path) ?? [];
    if (!answer) return;
    const body = ctx.is("json") ? await json(ctx.req) : undefined;
    ctx.body = await answer({ req: ctx, res: ctx, body, query: ctx.query });
  });
  return app;
};

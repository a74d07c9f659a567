// An application as TypeScript sees it: compiled, never run.

import express from "express";
import Fastify from "fastify";
import { Hono } from "hono";
import { Rekindle, RekindleError, onLog, type LogLine, type Verified, type Web } from "rekindle";
import * as ExpressSessions from "rekindle/express";
import * as Functions from "rekindle/functions";

onLog(({ level, message, fields }: LogLine) => console.error(level, message, fields));
const rekindle = await Rekindle.embedded({ development: true, secrets: async () => "…" });
const web: Web = rekindle.web({ development: true });

const app = express();
app.use(web.express());
app.post("/login", express.urlencoded(), async (req, res) => {
  const { session, warnings } = await web.signIn(req, res, { userId: req.body.user, claims: { admin: false } });
  res.json({ id: session.id, warnings: warnings.map(({ detail }) => detail) });
});
app.get("/me", web.required({ trust: "fail-closed" }), (req, res) => res.json({ user: req.session.userId }));
app.post("/logout", web.required(), async (req, res) => res.json(await req.session.signOut(res)));
app.use(web.errors());

const fastify = Fastify();
await fastify.register(web.fastify());
new Hono().use(web.hono());
export const GET = web.handler(async (_, visit) => Response.json({ user: (await visit.session({ mint: true })).userId }));

const remote = await Rekindle.remote({ servers: ["https://one.internal", "https://two.internal"], apiKey: () => "…" });
try {
  const says: Verified = await remote.verify("…", { trust: "online" });
  const expired: boolean = says.expiresAt < new Date();
  console.log(expired, says.claims["admin"]);
} catch (error) {
  if (error instanceof RekindleError && error.code === "token_theft_detected") console.error(error.userId, error.sessionId);
}
// @ts-expect-error: a user id is a text.
await remote.start({ userId: 7 });
// @ts-expect-error: such a code there is not.
if (new RekindleError().code === "stolen") throw new Error();

await Functions.init({ development: true, logging: { error: (line) => console.error(line.message) } });
const { accessToken } = await Functions.createNewSession("alice", { admin: true }, { cart: [] });
const { session } = await Functions.getSession(accessToken.token, null);
console.log(session.handle, session.jwtPayload);
app.post("/refresh", async (req, res) => {
  const renewed = await ExpressSessions.refreshSession(req, res);
  res.json({ user: renewed.getUserId() });
});

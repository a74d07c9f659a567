// Pages that are rendered on the server, in the shape of Next.js: `npm install && node server.mjs`, then http://localhost:3000.
//
// Route handlers (`app/login/route.js`, `app/api/me/route.js`) export functions of a `Request`; pages are functions that render. A page needs
// the session with `mint`: where the access token has expired, a short one is bought for the refresh token. Nothing rotates and no
// cookie has to be set, because a page that is being rendered cannot set one; the browser's half renews the session at its next call.
// `PORT` (0: any), `DATA` (a folder) and `DEFINITION` (a change of the session definition, in JSON) come from the environment.

import { serve } from "@hono/node-server";
import { Rekindle } from "rekindle";

const { PORT = 3000, DATA = "./rekindle-data", DEFINITION } = process.env;

const rekindle = await Rekindle.embedded({ dataDir: DATA, development: true });
if (DEFINITION) await rekindle.define({ tag: "default", ...JSON.parse(DEFINITION) });
const web = rekindle.web({ development: true });

/** `app/page.js`: a server component. */
const Page = async (visit) => {
  const session = await visit.sessionIfAny({ mint: true });
  if (!session) return html("<form method=post action=/login><label>Name <input name=user autofocus></label> <button>Sign in</button></form>");
  const { data } = await session.read();
  return html(`<p id=user>${escaped(session.userId)}</p><p id=cart>${data.cart.length} in your cart</p>`);
};

/** `app/login/route.js`. A real application checks a password here. */
const login = web.handler(async (request, visit) => {
  await visit.signIn({ userId: (await request.formData()).get("user"), data: { cart: [] } });
  return new Response(null, { status: 303, headers: { location: "/" } });
});

/** `app/cart/route.js`: a call of the page's script, after which the session is renewed where it has to be. */
const cart = web.handler(async (request, visit) => {
  const session = await visit.session();
  const { data } = await session.read();
  const changed = await session.patch({ data: { cart: [...data.cart, await request.json()] } });
  return Response.json(changed.data.cart);
});

const routes = {
  "GET /": web.handler((_, visit) => Page(visit)),
  "POST /login": login,
  "POST /cart": cart,
};

/** `app/auth/session/[route]/route.js`: the session's own routes; and what is nowhere. */
const others = web.handler(() => new Response("There is nothing here.", { status: 404 }));

const html = (body) =>
  new Response(`<!doctype html><meta charset=utf-8><title>Rekindle, rendered</title>${body}`, { headers: { "content-type": "text/html" } });
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const fetch = (request) => (routes[`${request.method} ${new URL(request.url).pathname}`] ?? others)(request);
serve({ fetch, port: Number(PORT), hostname: "127.0.0.1" }, ({ port }) => console.log(`Listening on http://localhost:${port}`));

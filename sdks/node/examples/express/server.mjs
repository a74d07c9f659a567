// An Express application with sessions: `npm install && node server.mjs`, then http://localhost:3000.
//
// The engine is in this process, on SQLite. What tests want otherwise comes from the environment: `PORT` (0: any), `DATA`
// (a folder), `DEFINITION` (a change of the session definition, in JSON), `REKINDLE_SERVER` and `REKINDLE_API_KEY` (sessions on servers).

import express from "express";
import { Rekindle } from "rekindle";
import { WebSocketServer } from "ws";

const { PORT = 3000, DATA = "./rekindle-data", DEFINITION, REKINDLE_SERVER, REKINDLE_API_KEY } = process.env;

const rekindle = REKINDLE_SERVER
  ? await Rekindle.remote({ servers: REKINDLE_SERVER.split(","), apiKey: REKINDLE_API_KEY })
  : await Rekindle.embedded({ dataDir: DATA, development: true });
if (DEFINITION) await rekindle.define({ tag: "default", ...JSON.parse(DEFINITION) });
const web = rekindle.web({ development: true });

const app = express();
app.use(web.express());

// A real application checks a password here.
app.post("/login", express.urlencoded(), async (req, res) => {
  await web.signIn(req, res, { userId: req.body.user }, { remember: req.body.remember !== "no" });
  res.redirect(303, "/");
});

app.post("/logout", web.required(), async (req, res) => {
  await req.session.signOut(res);
  res.redirect(303, "/");
});

app.get("/", async (req, res) => {
  const session = await web.sessionIfAny(req);
  const out = "<form method=post action=/logout><button>Sign out</button></form>";
  const into = "Nobody is signed in, or the access token has expired. <a href=/login>Sign in</a> or see <a href=/page>your page</a>.";
  res.send(html(session ? `<p>Signed in as ${escaped(session.userId)}.</p>${out}` : `<p>${into}</p>`));
});

app.get("/login", (req, res) => {
  res.send(html("<form method=post><label>Name <input name=user autofocus></label> <button>Sign in</button></form>"));
});

// An expired access token is refreshed by the page that `required` answers with.
app.get("/page", web.required(), (req, res) => {
  const { userId, says } = req.session;
  res.send(html(`<p id=user>${escaped(userId)}</p><p id=generation>${says.generation}</p>`));
});

// An expired access token does not matter here.
app.get("/rendered", web.required({ mint: true }), (req, res) => {
  res.send(html(`<p id=user>${escaped(req.session.userId)}</p>`));
});

const told = ({ id, userId, claims, says }) => ({
  user_id: userId,
  session_id: id,
  generation: says.generation,
  claims,
  acr: says.auth.acr ?? null,
});

app.get("/api/me", web.required(), (req, res) => res.json(told(req.session)));

app.get("/api/me/online", web.required({ trust: "online" }), (req, res) => res.json(told(req.session)));

app.patch("/api/me", web.required(), express.json(), async (req, res) => {
  const { data, claims, version } = await req.session.patch({ data: req.body.data, claims: req.body.claims });
  res.json({ data, claims, version });
});

// A real application asks for the password, or a second factor, again.
app.post("/api/elevate", web.required(), async (req, res) => {
  await req.session.elevate(res, { acr: "aal2", amr: ["pwd", "otp"] });
  res.status(204).end();
});

app.use(web.errors());

const html = (body) => `<!doctype html><meta charset=utf-8><title>Rekindle with Express</title>${body}`;
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

// Live connections by session: each is closed when its session ends, wherever that happens.
const live = new Map();
const sockets = new WebSocketServer({ noServer: true });

const connected = (socket, session) => {
  if (!live.has(session.id)) live.set(session.id, new Set());
  const own = live.get(session.id).add(socket);
  socket.on("close", () => own.delete(socket) && own.size === 0 && live.delete(session.id));
  socket.on("error", () => socket.terminate());
  socket.send(`Hello, ${session.userId}.`);
};

rekindle.onRevoked(({ sessionId }) => live.get(sessionId)?.forEach((socket) => socket.close(4401, "the session has ended")));

const server = app.listen(PORT, "127.0.0.1", () => console.log(`Listening on http://localhost:${server.address().port}`));

server.on("upgrade", async (req, connection, head) => {
  try {
    // As strict as for a form: another site's page is refused.
    const session = await web.session(req, { trust: "online" });
    sockets.handleUpgrade(req, connection, head, (socket) => connected(socket, session));
  } catch (error) {
    connection.end(`HTTP/1.1 ${error.status ?? 503} ${error.code ?? "unavailable"}\r\nconnection: close\r\n\r\n`);
  }
});

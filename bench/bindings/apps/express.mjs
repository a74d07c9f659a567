// An application on Express that signs users in, says who calls, and renews sessions, with the library that its argument names. Prints its
// port. `FOLDER` is for its files; `REDIS_PORT` and `MARIADB_PORT` are those of the databases.

import path from "node:path";
import { DatabaseSync } from "node:sqlite";

import express from "express";

const { FOLDER, REDIS_PORT, MARIADB_PORT } = process.env;

/** What each library adds to an application; `refresh` says how a visitor renews its session. */
const kinds = {
  async rekindle(app) {
    const { Rekindle } = await import("rekindle");
    const rekindle = await Rekindle.embedded({ dataDir: path.join(FOLDER, "rekindle"), development: true });
    const web = rekindle.web({ development: true });
    app.use(web.express());
    app.post("/login", async (req, res) => {
      await web.signIn(req, res, { userId: req.query.user });
      res.json({});
    });
    app.get("/me", web.required(), (req, res) => res.json({ user: req.session.userId }));
    app.use(web.errors());
  },

  /** The application above with middleware that only adds the same headers, and names a user. */
  nothing(app) {
    app.use((req, res, next) => {
      res.setHeader("cache-control", "private, no-store");
      res.setHeader("vary", "Cookie, Authorization");
      next();
    });
    app.post("/login", (req, res) => res.json({}));
    const named = (req, res, next) => {
      req.session = { userId: "user-0" };
      next();
    };
    app.get("/me", named, (req, res) => res.json({ user: req.session.userId }));
  },

  async "express-session"(app) {
    const [{ default: session }, { RedisStore }, { createClient }] = await Promise.all(["express-session", "connect-redis", "redis"].map((name) => import(name)));
    const client = await createClient({ url: `redis://127.0.0.1:${REDIS_PORT}` }).connect();
    app.use(session({ store: new RedisStore({ client }), secret: "only for this measurement", resave: false, saveUninitialized: false }));
    app.post("/login", (req, res) => {
      req.session.user = req.query.user;
      res.json({});
    });
    // Its way to give a session another secret: the old one is gone.
    app.post("/refresh", (req, res, next) => {
      const { user } = req.session;
      req.session.regenerate((failure) => {
        if (failure) return next(failure);
        req.session.user = user;
        res.json({ user });
      });
    });
    app.get("/me", (req, res) => res.json({ user: req.session.user }));
  },

  async "better-auth"(app) {
    const [{ betterAuth }, { getMigrations }, { fromNodeHeaders, toNodeHandler }] = await Promise.all(
      ["better-auth", "better-auth/db/migration", "better-auth/node"].map((name) => import(name)),
    );
    const database = new DatabaseSync(path.join(FOLDER, "better-auth.db"));
    // As durable as Rekindle's store.
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    const options = {
      baseURL: "http://localhost",
      secret: "only for this measurement, and long enough",
      database,
      emailAndPassword: { enabled: true },
      // Each question renews: the session's end moves, its token stays.
      session: { updateAge: 0 },
      rateLimit: { enabled: false },
      telemetry: { enabled: false },
    };
    await (await getMigrations(options)).runMigrations();
    const auth = betterAuth(options);
    app.post("/login", async (req, res) => {
      const { user } = req.query;
      const body = { name: user, email: `${user}@example.com`, password: "a password of this measurement" };
      const { headers } = await auth.api.signUpEmail({ body, returnHeaders: true });
      for (const cookie of headers.getSetCookie()) res.append("set-cookie", cookie);
      res.json({});
    });
    app.get("/me", async (req, res) => {
      const found = await auth.api.getSession({ headers: fromNodeHeaders(req.headers), query: { disableRefresh: true } });
      res.json({ user: found.user.name });
    });
    app.use("/api/auth", toNodeHandler(auth));
  },

  async "supertokens-node-mysql-ref-jwt"(app) {
    const { default: sessions } = await import("supertokens-node-mysql-ref-jwt/express.js");
    await sessions.init({
      mysql: { host: "127.0.0.1", port: Number(MARIADB_PORT), user: "root", password: "", database: "auth" },
      tokens: { refreshToken: { renewTokenPath: "/refresh" } },
      cookie: { domain: "localhost", secure: false },
    });
    app.post("/login", async (req, res) => {
      await sessions.createNewSession(res, req.query.user);
      res.json({});
    });
    app.post("/refresh", async (req, res) => {
      const session = await sessions.refreshSession(req, res);
      res.json({ user: session.getUserId() });
    });
    app.get("/me", async (req, res) => res.json({ user: (await sessions.getSession(req, res, false)).getUserId() }));
  },
};

const app = express();
await kinds[process.argv[2]](app);
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port));

// The handle: sessions without requests, in this process and on a server.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Rekindle, RekindleError, onLog } from "rekindle";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-node-"));
const embedded = (options) => Rekindle.embedded({ dataDir: path.join(folder, "data"), development: true, ...options });

/** An opening with its commitment. */
const secret = () => {
  const opening = randomBytes(32);
  const commitment = createHash("sha256").update(opening).digest().subarray(0, 16);
  return { opening: opening.toString("base64url"), commitment: commitment.toString("base64url") };
};

const code = (expected) => (error) => {
  assert.ok(error instanceof RekindleError, error);
  assert.equal(error.code, expected, error.message);
  return true;
};

/** `rekindle serve --dev`, as a handle on it. */
const served = async () => {
  const cwd = path.join(folder, "served");
  fs.mkdirSync(cwd);
  const server = spawn(process.env.REKINDLE, ["serve", "--dev", "--listen", "127.0.0.1:0"], { cwd, stdio: ["ignore", "pipe", "ignore"] });
  const said = {};
  for await (const line of createInterface(server.stdout)) {
    const [, name, value] = /^(Listening on|API key:) (\S+)$/.exec(line) ?? [];
    said[name] = value;
    if (said["API key:"]) break;
  }
  const handle = await Rekindle.remote({ server: said["Listening on"], apiKey: said["API key:"] });
  // Its keys are fetched ahead, but not before this.
  await handle.start({ userId: "first" });
  return [handle, () => { server.kill("SIGKILL"); return once(server, "exit"); }];
};

const suite = (open) => () => {
  let rekindle, close;
  before(async () => ([rekindle, close] = await open()));
  after(() => close?.());

  it("starts, verifies, refreshes, reads, changes and ends a session", async () => {
    const first = await rekindle.start({ userId: "alice", data: { cartItems: [1] }, claims: { is_admin: false }, client: { device: "phone" } });
    assert.deepEqual(first.session.data, { cartItems: [1] });
    assert.ok(first.accessTokenExpiresAt > new Date() && first.session.createdAt <= new Date());
    const says = await rekindle.verify(first.accessToken);
    assert.deepEqual([says.userId, says.sessionId, says.claims], ["alice", first.session.id, { is_admin: false }]);
    assert.equal((await rekindle.verify(first.accessToken, { trust: "online" })).userId, "alice");

    const second = await rekindle.refresh({ refreshToken: first.refreshToken });
    assert.equal(second.session.generation, 1);
    const again = await rekindle.refresh({ refreshToken: first.refreshToken });
    assert.equal(again.refreshToken, second.refreshToken, "a lost answer is given again");

    const changed = await rekindle.patch(first.session.id, { data: { cartItems: null, note: "ü" }, ifVersion: second.session.version });
    assert.deepEqual(changed.data, { note: "ü" });
    await assert.rejects(rekindle.patch(first.session.id, { data: {}, ifVersion: 1 }), code("version_mismatch"));
    assert.deepEqual((await rekindle.read(first.session.id)).data, { note: "ü" });

    const { sessions, next } = await rekindle.list({ userId: "alice", state: "active" });
    assert.deepEqual([sessions.map(({ id }) => id), next], [[first.session.id], null]);

    const { accessToken } = await rekindle.mint(second.refreshToken, { lifetime: 30 });
    assert.equal((await rekindle.verify(accessToken)).userId, "alice");

    await rekindle.signOut(second.refreshToken);
    await assert.rejects(rekindle.verify(second.accessToken, { trust: "online" }), code("session_revoked"));
    await assert.rejects(rekindle.refresh({ refreshToken: second.refreshToken }), (error) => code("session_revoked")(error) && error.isTerminal);
    assert.equal((await rekindle.read(first.session.id)).state, "ended");
  });

  it("holds the rules for committed clients, and says who was robbed", async () => {
    const [one, two, three] = [secret(), secret(), secret()];
    const first = await rekindle.start({ userId: "bob", commitment: one.commitment });
    const proof = (generation, next, { opening }) => ({ sessionId: first.session.id, generation, commitment: next.commitment, opening });
    await assert.rejects(rekindle.refresh({ refreshToken: first.refreshToken }), (error) => code("proof_required")(error) && error.generation === 0);
    const second = await rekindle.refresh({ refreshToken: first.refreshToken, proof: proof(0, two, one) });
    assert.equal(second.commitment, two.commitment);
    await assert.rejects(rekindle.refresh({ refreshToken: second.refreshToken, proof: proof(1, three, one) }), (error) => {
      code("token_theft_detected")(error);
      assert.deepEqual([error.userId, error.sessionId, error.kind], ["bob", first.session.id, "stolen_token"]);
      return true;
    });
    await assert.rejects(rekindle.verify(second.accessToken, { trust: "online" }), code("session_revoked"));
  });

  it("ends all of a user's sessions but one, and tells of it", async () => {
    const [kept, other] = [await rekindle.start({ userId: "carol" }), await rekindle.start({ userId: "carol" })];
    await rekindle.verify(other.accessToken);
    const told = new Promise((resolve) => rekindle.onRevoked(({ sessionId }) => sessionId === other.session.id && resolve()));
    assert.equal(await rekindle.revokeUser("carol", { except: kept.session.id }), 1);
    // A listener alone keeps no process alive; a server's requests do.
    const patience = setTimeout(() => assert.fail("nobody told of the revocation"), 10_000);
    await told;
    clearTimeout(patience);
    await assert.rejects(rekindle.verify(other.accessToken), code("session_revoked"));
    assert.equal((await rekindle.verify(kept.accessToken)).userId, "carol");
    assert.equal(await rekindle.credentialChanged("carol"), 1);
    await assert.rejects(rekindle.verify(kept.accessToken, { trust: "online" }), code("session_revoked"));
  });

  it("elevates: tokens of before are refused from then on", async () => {
    const before = await rekindle.start({ userId: "dave" });
    const { session, accessToken } = await rekindle.elevate({ refreshToken: before.refreshToken, auth: { acr: "aal2", amr: ["otp"] } });
    assert.equal(session.auth.acr, "aal2");
    await assert.rejects(rekindle.verify(before.accessToken, { trust: "online" }), (error) => error instanceof RekindleError);
    assert.equal((await rekindle.verify(accessToken, { trust: "online" })).auth.acr, "aal2");
  });

  it("says what is wrong with what it is given", async () => {
    await assert.rejects(rekindle.start({ userId: 5 }), (error) => code("invalid_request")(error) && /integer `5`/.test(error.message));
    await assert.rejects(rekindle.start({ user: "x" }), (error) => code("invalid_request")(error) && /unknown field `user`/.test(error.message));
    for (const token of ["", "x", "rkr_x", "a.b.c", "\u0000", "x".repeat(100_000)]) {
      await assert.rejects(rekindle.verify(token), code("token_malformed"));
    }
    await assert.rejects(rekindle.refresh({ refreshToken: "rkr_x" }), code("token_malformed"));
    await assert.rejects(rekindle.verify("x", { trust: "blindly" }), code("invalid_request"));
    await assert.rejects(rekindle.read("x"), code("invalid_request"));
    await assert.rejects(rekindle.read("0199a3b4-7c00-7000-8000-000000000001"), code("session_not_found"));
  });

  it("has the shapes in which a token names its tag", async () => {
    const data = { userId: "1919102009383", details: { username: "feekayo" } };
    const { token, refreshToken, sessionId } = await rekindle.sessions.start({ tag: "default", data, identifier: "1919102009383" });
    assert.match(token, /^default:ey/);
    assert.deepEqual(await rekindle.sessions.decrypt({ token }), data);
    const verified = await rekindle.sessions.verify({ product: "default", env: "dev", tag: "default", token });
    assert.deepEqual([verified.valid, verified.sessionId, verified.data], [true, sessionId, data]);
    const result = await rekindle.sessions.refresh({ tag: "default", refreshToken });
    assert.equal(result.sessionId, sessionId);
    assert.equal((await rekindle.sessions.listActive({ identifier: "1919102009383" })).sessions[0].active, true);
    assert.deepEqual(await rekindle.sessions.revokeAll({ identifier: "1919102009383" }), { revokedCount: 1 });
    await rekindle.sessions.revoke({ sessionId });
    await sleep(1500);
    const { valid, reason } = await rekindle.sessions.verify({ token: result.token });
    assert.deepEqual([valid, reason], [false, "session_revoked"]);
  });
};

after(() => fs.rmSync(folder, { recursive: true }));

describe("in this process", suite(async () => [await embedded()]));
describe("on a server", suite(served));

describe("what the application keeps and reads", () => {
  it("fetches secrets where they are kept", async () => {
    const first = await embedded();
    const { refreshToken } = await first.start({ userId: "alice" });
    const dataDir = path.join(folder, "data");
    const kept = fs.readFileSync(path.join(dataDir, "secrets"), "utf8");
    const fetched = async (secrets) => Rekindle.embedded({ dataDir, secrets: async () => secrets });
    assert.equal((await (await fetched(kept)).refresh({ refreshToken })).session.userId, "alice");
    await assert.rejects(fetched("nothing"), code("invalid_request"));
    await assert.rejects(Rekindle.remote({ server: "http://127.0.0.1:1", apiKey: () => Promise.reject(new Error("the vault is shut")) }), /the vault is shut/);
  });

  it("has the log of outages", async () => {
    const lines = [];
    onLog((line) => lines.push(line));
    const away = await Rekindle.remote({ server: "http://127.0.0.1:1", apiKey: () => "rk_away" });
    await assert.rejects(away.start({ userId: "alice" }), code("unavailable"));
    while (!lines.some(({ level, fields }) => level === "warn" && fields.server === "http://127.0.0.1:1/")) await sleep(10);
    assert.ok(!JSON.stringify(lines).includes("rk_away"));
  });
});

describe("in this process only", () => {
  it("makes what is not there: product, environment, definition", async () => {
    const rekindle = await embedded({ product: "shop", env: "prd", tag: "cart" });
    await rekindle.define({ tag: "cart", selector: "$Session{userId}", access_token: { lifetime: 60 } });
    const { session, accessTokenExpiresAt } = await rekindle.start({ data: { userId: "alice" } });
    assert.deepEqual([session.product, session.env, session.tag, session.userId], ["shop", "prd", "cart", "alice"]);
    assert.ok(accessTokenExpiresAt - new Date() <= 60_000);
    await assert.rejects(rekindle.define({ tag: "cart", access_token: { lifetime: 0 } }), code("invalid_request"));
    await assert.rejects((await rekindle.at({ env: "dev" })).verify((await rekindle.start({ data: { userId: "a" } })).accessToken), code("token_malformed"));
  });

  it("refuses a store that it cannot use, without its password", async () => {
    await assert.rejects(embedded({ store: "oracle://ada:s3cret@x" }), (error) => code("invalid_request")(error) && !/s3cret/.test(error.message));
    await assert.rejects(Rekindle.embedded({ dataDir: path.join(folder, "nothing") }), /no master secrets/);
  });

  it("is loaded once, by import and by require", async () => {
    const required = createRequire(import.meta.url)("rekindle");
    assert.equal(required.Rekindle, Rekindle);
  });

  it("sweeps", async () => {
    const rekindle = await embedded();
    assert.equal(await rekindle.sweep(), 0);
    // What was revoked is known once the feed was read, which is done twice in a second.
    while (rekindle.isStale) await sleep(50);
  });
});

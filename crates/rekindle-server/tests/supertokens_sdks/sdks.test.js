// Each published SDK, unchanged, on a Rekindle server: what its users do with it.

"use strict";

const assert = require("node:assert/strict");
const { createPublicKey, verify } = require("node:crypto");
const { after, before, describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");

const { clients } = require("./clients");
const { Site } = require("./site");
const { Visitor } = require("./visitor");

/** How long access tokens live where they must expire, in seconds. */
const SHORT = 8;
/** How long a key signs them there, in seconds. */
const KEY = 6;

const expired = () => sleep(SHORT * 1000 + 100);

/** A visitor who has logged in. */
const visitor = async (site, session, mode) => {
  const visitor = new Visitor(site.app.address, mode);
  const { userId, payload } = ok(await visitor.ask("POST", "/login", { payload: {}, data: {}, ...session }));
  assert.equal(userId, session.userId);
  for (const [name, value] of Object.entries(session.payload ?? {})) assert.deepEqual(payload[name], value);
  return visitor;
};

/** The body of an answer with status 200. */
const ok = ({ status, body }) => {
  assert.equal(status, 200, JSON.stringify(body));
  return body;
};

/** An answer with this status and message, as the SDKs say them. */
const refused = ({ status, body }, message, expected = 401) =>
  assert.deepEqual({ status, message: body.message }, { status: expected, message });

/** A refresh with a token whose child is in use: theft, and the end of the session. */
const stolenBy = async (thief, honest) => {
  refused(await thief.refresh(), "token theft detected");
  refused(await honest.refresh(), "unauthorised");
};

const shortLived = (client) => () => {
  let site;
  before(async () => (site = await Site.start(client, { accessTokens: SHORT, keyHours: KEY / 3600, count: 2 })));
  after(() => site?.stop());

  it("logs in, calls, expires, refreshes, calls again; a replayed refresh token is theft", async () => {
    const alice = await visitor(site, { userId: "alice", payload: { role: "author" } });
    assert.equal(alice.hasAntiCsrf, false);
    assert.equal(ok(await alice.ask("GET", "/me")).payload.role, "author");
    await expired();
    refused(await alice.ask("GET", "/me"), "try refresh token");
    const thief = alice.twin();
    ok(await alice.refresh());

    // The first call confirms the refresh and brings a new access token, later ones do not.
    let before = alice.accessToken;
    assert.equal(ok(await alice.ask("GET", "/me")).payload.role, "author");
    assert.notEqual(alice.accessToken, before);
    before = alice.accessToken;
    ok(await alice.ask("POST", "/me"));
    assert.equal(alice.accessToken, before);

    await stolenBy(thief, alice);
    assert.deepEqual(ok(await alice.ask("GET", "/sessions?userId=alice")), []);
  });

  it("goes over to the next signing key", async () => {
    const keys = async () => {
      const { keys } = await (await fetch(`${site.cores[0].address}/.well-known/jwks.json`)).json();
      return keys.map(({ kid }) => kid).filter((kid) => kid.startsWith("d-"));
    };
    const before = await keys();
    const bob = await visitor(site, { userId: "bob" });
    let carol, since;
    for (const end = Date.now() + 2 * KEY * 1000; Date.now() < end; ) {
      // Carol's token stays good when its key does not sign any more, whatever bob's calls have taught the SDK.
      if (!carol || Date.now() - since > (SHORT - 3) * 1000) {
        since = Date.now();
        carol = await visitor(site, { userId: "carol" });
      }
      await sleep(500);
      ok(await carol.ask("GET", "/me"));
      ok(await bob.refresh());
      ok(await bob.ask("GET", "/me"));
    }
    assert.ok((await keys()).some((kid) => !before.includes(kid)), `only ${before}`);
  });
};

const guarded = (client) => () => {
  let site;
  before(async () => {
    const apiKey = client.keyless ? undefined : "a-key-of-this-test-0123456789";
    site = await Site.start(client, { antiCsrf: true, apiKey, count: 2 });
  });
  after(() => site?.stop());

  it("wants the anti-CSRF token for what changes something, a new one after each refresh", async () => {
    const eve = await visitor(site, { userId: "eve" });
    assert.equal(eve.hasAntiCsrf, true);
    refused(await eve.ask("PUT", "/data", { from: "another site" }, { antiCsrf: false }), "try refresh token");
    ok(await eve.ask("PUT", "/data", { from: "here" }));
    const old = eve.twin();
    ok(await eve.refresh());
    ok(await eve.ask("PUT", "/data", { from: "here, later" }));
    assert.deepEqual(ok(await eve.ask("GET", "/data", undefined, { antiCsrf: false })), { from: "here, later" });
    await stolenBy(old, eve);
  });

  it("refreshes again whose answer was lost, and twice in a row without a call between", async () => {
    const bob = await visitor(site, { userId: "bob" });
    ok(await bob.twin().refresh());
    const thief = bob.twin();
    ok(await bob.refresh());
    ok(await bob.refresh());
    ok(await bob.ask("GET", "/me"));
    await stolenBy(thief, bob);
  });

  it("keeps a session's data", async () => {
    const frank = await visitor(site, { userId: "frank", data: { cart: [], note: null } });
    assert.deepEqual(ok(await frank.ask("GET", "/data")), { cart: [], note: null });
    ok(await frank.ask("PUT", "/data", { cart: ["ü", { count: 2 }] }));
    ok(await frank.refresh());
    assert.deepEqual(ok(await frank.ask("GET", "/data")), { cart: ["ü", { count: 2 }] });
  });

  it("lists a user's sessions, and revokes one and all", async () => {
    const phone = await visitor(site, { userId: "grace" });
    const [handle] = ok(await phone.ask("GET", "/sessions?userId=grace"));
    const desk = await visitor(site, { userId: "grace" });
    const other = await visitor(site, { userId: "heidi" });
    const both = ok(await desk.ask("GET", "/sessions?userId=grace"));
    assert.equal(both.length, 2);
    assert.equal(new Set([...both, handle]).size, 2);

    assert.deepEqual(ok(await desk.ask("POST", "/revoke", { handle })), { revoked: true });
    assert.deepEqual(ok(await desk.ask("POST", "/revoke", { handle })), { revoked: false });
    refused(await phone.refresh(), "unauthorised");
    const [left] = ok(await desk.ask("GET", "/sessions?userId=grace"));
    assert.deepEqual(both.filter((each) => each !== handle), [left]);

    // supertokens-node 1.0.0 counts them, later SDKs name them.
    const { revoked } = ok(await desk.ask("POST", "/revoke-all", { userId: "grace" }));
    assert.ok(revoked === 1 || (revoked.length === 1 && revoked[0] === left), JSON.stringify(revoked));
    refused(await desk.refresh(), "unauthorised");
    ok(await other.refresh());
  });

  it("signs out", async () => {
    const ivan = await visitor(site, { userId: "ivan" });
    const before = ivan.twin();
    ok(await ivan.ask("POST", "/logout"));
    assert.deepEqual(ok(await ivan.ask("GET", "/sessions?userId=ivan")), []);
    assert.equal((await ivan.ask("GET", "/me")).status, 401);
    refused(await before.refresh(), "unauthorised");
  });

  it("refuses tokens that are none", async () => {
    const judy = await visitor(site, { userId: "judy" });
    const forged = new Visitor(site.app.address);
    forged.cookies = { sAccessToken: judy.accessToken.slice(0, -8), sRefreshToken: "forged", sIdRefreshToken: "forged" };
    refused(await forged.ask("GET", "/me"), "try refresh token");
    refused(await forged.refresh(), "unauthorised");
    ok(await judy.ask("GET", "/me"));
  });

  if (client.payload) {
    it("changes the payload of access tokens, now and after a refresh", async () => {
      const kim = await visitor(site, { userId: "kim", payload: { role: "reader" } });
      ok(await kim.ask("PUT", "/payload", { role: "author", tags: ["a", null] }));
      for (let round = 0; round < 2; round++) {
        const { payload } = ok(await kim.ask("GET", "/me"));
        assert.deepEqual({ role: payload.role, tags: payload.tags }, { role: "author", tags: ["a", null] });
        ok(await kim.refresh());
      }
    });
  }

  if (client.information) {
    it("says all about a session", async () => {
      const lea = await visitor(site, { userId: "lea", data: { cart: [1] } });
      const [handle] = ok(await lea.ask("GET", "/sessions?userId=lea"));
      const found = ok(await lea.ask("GET", `/information?handle=${handle}`));
      assert.equal(found.sessionHandle, handle);
      assert.equal(found.userId, "lea");
      assert.deepEqual(found.sessionData ?? found.sessionDataInDatabase, { cart: [1] });
      assert.ok(found.timeCreated <= Date.now() && found.expiry > Date.now(), JSON.stringify(found));
    });
  }

  if (client.claims) {
    it("guards by claims", async () => {
      const mallory = await visitor(site, { userId: "mallory" });
      const { status, body } = await mallory.ask("GET", "/members");
      assert.equal(status, 403, JSON.stringify(body));
      ok(await mallory.ask("POST", "/join"));
      for (let round = 0; round < 2; round++) {
        assert.equal(ok(await mallory.ask("GET", "/members")).payload.member.v, true);
        ok(await mallory.refresh());
      }
    });
  }

  if (client.inForce) {
    it("sees a revocation at once where it asks the server", async () => {
      const niaj = await visitor(site, { userId: "niaj" });
      assert.equal(ok(await niaj.ask("GET", "/in-force")).userId, "niaj");
      ok(await niaj.twin().ask("POST", "/revoke-all", { userId: "niaj" }));
      ok(await niaj.twin().ask("GET", "/me"));
      refused(await niaj.ask("GET", "/in-force"), "unauthorised");
    });
  }

  if (client.jwt) {
    it("makes JWTs that the published keys verify", async () => {
      const anyone = new Visitor(site.app.address);
      const { jwt } = ok(await anyone.ask("POST", "/jwt", { for: "another service" }));
      const { keys } = ok(await anyone.ask("GET", "/keys"));
      const [header, payload, signature] = jwt.split(".");
      const read = (part) => JSON.parse(Buffer.from(part, "base64url"));
      const key = keys.find(({ kid }) => kid === read(header).kid);
      const publicKey = createPublicKey({ key, format: "jwk" });
      assert.ok(verify("RSA-SHA256", `${header}.${payload}`, publicKey, Buffer.from(signature, "base64url")));
      const { for: whom, iat, exp } = read(payload);
      assert.deepEqual({ whom, lives: exp - iat }, { whom: "another service", lives: 60 });
    });
  }

  if (client.headers) {
    it("carries tokens in headers", async () => {
      const olivia = await visitor(site, { userId: "olivia" }, "header");
      assert.equal(ok(await olivia.ask("PUT", "/data", { any: "thing" })).status, undefined);
      const thief = olivia.twin();
      ok(await olivia.refresh());
      assert.deepEqual(ok(await olivia.ask("GET", "/data")), { any: "thing" });
      await stolenBy(thief, olivia);
    });
  }

  // The last one: it leaves one server.
  it("works on with one of two servers killed", async () => {
    const carol = await visitor(site, { userId: "carol", data: { cart: [1] } });
    await site.cores[0].kill();
    // These SDKs go to another server when a connection is refused, not when an open one breaks: the app shall notice.
    await sleep(200);
    for (let round = 0; round < 3; round++) {
      ok(await carol.refresh());
      assert.equal(ok(await carol.ask("GET", "/me")).userId, "carol");
      assert.deepEqual(ok(await carol.ask("GET", "/data")), { cart: [1] });
      await visitor(site, { userId: "dave" });
    }
    assert.equal(ok(await carol.ask("GET", "/sessions?userId=dave")).length, 3);
  });
};

/** An app of its own on the server, with a tenant. The SDK is told by its `connectionURI`. */
const tenanted = (client) => () => {
  let site;
  const put = async (address, body) => {
    const headers = { "content-type": "application/json", "cdi-version": "5.4" };
    const answer = await fetch(address, { method: "PUT", headers, body: JSON.stringify(body) });
    assert.deepEqual(await answer.json(), { status: "OK", createdNew: true });
  };
  const between = async (core) => {
    const coreConfig = { access_token_validity: `${SHORT}`, access_token_algorithm: "ES256" };
    await put(`${core}/recipe/multitenancy/app/v2`, { appId: "shop", coreConfig });
    await put(`${core}/appid-shop/recipe/multitenancy/tenant/v2`, { tenantId: "t1" });
    return `${core}/appid-shop`;
  };
  before(async () => (site = await Site.start(client, { between })));
  after(() => site?.stop());

  it("has sessions in the tenant, and tokens that are signed with ES256", async () => {
    const amy = await visitor(site, { userId: "amy", tenant: "t1" });
    const header = JSON.parse(Buffer.from(amy.accessToken.split(".")[0], "base64url"));
    assert.equal(header.alg, "ES256");
    assert.equal(ok(await amy.ask("GET", "/me")).payload.tId, "t1");
    const [handle] = ok(await amy.ask("GET", "/sessions?userId=amy"));
    assert.match(handle, /_t1$/);
    await expired();
    refused(await amy.ask("GET", "/me"), "try refresh token");
    const thief = amy.twin();
    ok(await amy.refresh());
    ok(await amy.ask("PUT", "/data", { cart: [1] }));
    assert.deepEqual(ok(await amy.ask("GET", "/data")), { cart: [1] });
    assert.equal(ok(await amy.ask("GET", "/in-force")).userId, "amy");
    await stolenBy(thief, amy);
    assert.deepEqual(ok(await amy.ask("GET", "/sessions?userId=amy")), []);
  });
};

describe("published SDKs", { concurrency: 3 }, () => {
  for (const client of clients) {
    describe(client.name, () => {
      describe("with short-lived access tokens and signing keys", { concurrency: 2 }, shortLived(client));
      const guards = client.keyless ? "anti-CSRF tokens" : "anti-CSRF tokens and an API key";
      describe(`with ${guards}`, { concurrency: 1 }, guarded(client));
      if (client.tenants) describe("with an app and a tenant of its own", tenanted(client));
    });
  }
});

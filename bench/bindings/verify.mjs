// What it costs to verify an access token in Node.js, beside what others' libraries cost: the median of rounds, in microseconds. `run`
// prepares what it needs; see ../README.md.

import { generateKeyPairSync, verify as nodeVerify } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { createVerifier } from "fast-jwt";
import { exportJWK, importJWK, jwtVerify, SignJWT } from "jose";
import { Rekindle } from "rekindle";

const [ROUNDS, KNOWN, NEW] = [9, 20_000, 1_000];
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-bench-"));
const rekindle = await Rekindle.embedded({ dataDir: path.join(folder, "data"), development: true });

/** Microseconds for each of so many. */
const each = async (count, work) => {
  const before = process.hrtime.bigint();
  for (let at = 0; at < count; at++) await work(at);
  return Number(process.hrtime.bigint() - before) / 1000 / count;
};

/** The median of rounds, each prepared anew. */
const median = async (prepare, count, work) => {
  const rounds = [];
  for (let round = 0; round < ROUNDS + 2; round++) {
    const prepared = await prepare();
    const took = await each(count, (at) => work(prepared, at));
    // The first ones warm up.
    if (round >= 2) rounds.push(took);
  }
  return rounds.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)];
};

const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const jwk = await importJWK({ ...(await exportJWK(publicKey)), alg: "EdDSA" });
const claims = { product: "default", env: "dev", sid: "0199a3b4-7c00-7000-8000-000000000001", gen: 0, role: "admin" };
let drawn = 0;
const jwt = () =>
  new SignJWT({ ...claims, jti: String(drawn++) }).setProtectedHeader({ alg: "EdDSA", kid: "k", typ: "at+jwt" }).setIssuer("http://localhost")
    .setSubject("alice").setAudience("default/dev").setIssuedAt().setExpirationTime("15m").sign(privateKey);
const own = async () => (await rekindle.start({ userId: `user-${drawn++}`, claims: { role: "admin" } })).accessToken;
const many = (make) => async () => {
  const tokens = [];
  for (let at = 0; at < NEW; at++) tokens.push(await make());
  return tokens;
};

const joseVerify = (token) => jwtVerify(token, jwk, { issuer: "http://localhost", audience: "default/dev", typ: "at+jwt" });
const options = { key: publicKey.export({ type: "spki", format: "pem" }), allowedIss: "http://localhost", allowedAud: "default/dev" };
const fast = createVerifier(options);
const remembering = createVerifier({ ...options, cache: 10_000 });
const signed = (token) => {
  const at = token.lastIndexOf(".");
  return nodeVerify(null, Buffer.from(token.slice(0, at)), publicKey, Buffer.from(token.slice(at + 1), "base64url"));
};

const rows = [
  ["rekindle", await median(own, KNOWN, (token) => rekindle.verify(token)), await median(many(own), NEW, (tokens, at) => rekindle.verify(tokens[at]))],
  ["jose", await median(jwt, 2_000, joseVerify), await median(many(jwt), NEW, (tokens, at) => joseVerify(tokens[at]))],
  ["fast-jwt", await median(jwt, 2_000, fast), await median(many(jwt), NEW, (tokens, at) => fast(tokens[at]))],
  ["fast-jwt, which remembers", await median(jwt, KNOWN, remembering), await median(many(jwt), NEW, (tokens, at) => remembering(tokens[at]))],
  ["node:crypto, the signature alone", await median(jwt, 2_000, signed), await median(many(jwt), NEW, (tokens, at) => signed(tokens[at]))],
];
console.log(`Node.js ${process.versions.node}\n\n| | known token, µs | new token, µs |\n|---|---:|---:|`);
for (const [name, known, fresh] of rows) console.log(`| ${name} | ${known.toFixed(2)} | ${fresh.toFixed(1)} |`);
fs.rmSync(folder, { recursive: true });
process.exit();

// Headers and markers.

import assert from "node:assert/strict";
import { it } from "node:test";

import { commitmentHeader, draw, proofHeader, readMarker, readPosition } from "../dist/proof.js";

const session = "0199a3b4-7c00-7000-8000-000000000001";
const commitment = "Yw3NKWbEM2aRElRIu7JbTw";

it("writes a proof as a dictionary of RFC 9651", () => {
  const proof = { session, generation: 7, commitment, opening: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" };
  const header = `sid="${session}", gen=7, c=:Yw3NKWbEM2aRElRIu7JbTw==:, o=:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:`;
  assert.equal(proofHeader(proof), header);
  assert.equal(proofHeader({ ...proof, newest: true }), `${header}, newest`);
});

it("writes a bearer generation's proof without an opening", () => {
  assert.equal(proofHeader({ session, generation: 0, commitment }), `sid="${session}", gen=0, c=:Yw3NKWbEM2aRElRIu7JbTw==:`);
});

it("writes byte sequences in the standard alphabet, padded", () => {
  assert.equal(commitmentHeader("-__-AAAAAAAAAAAAAAAAAA"), "c=:+//+AAAAAAAAAAAAAAAAAA==:");
});

it("draws 32 bytes, and commits to the first sixteen of their hash", async () => {
  const asked = [];
  const random = (bytes) => (asked.push(bytes), new Uint8Array(bytes).fill(7));
  const secret = await draw(random, async () => new Uint8Array(32).map((_, i) => i));
  assert.deepEqual(asked, [32]);
  assert.deepEqual(secret, { opening: Buffer.alloc(32, 7).toString("base64url"), commitment: "AAECAwQFBgcICQoLDA0ODw" });
});

it("reads markers, also of bearer generations", () => {
  assert.deepEqual(readMarker(`${session}.7.${commitment}.1795000000`), { session, generation: 7, commitment });
  assert.deepEqual(readMarker(`${session}.0..1795000000`), { session, generation: 0, commitment: "" });
});

it("takes nothing else for a marker", () => {
  const bad = ["", "....", `${session}.7.${commitment}`, `${session}.7.${commitment}.1.2`, `${session}..${commitment}.1`];
  bad.push(`${session}.-1..1`, `${session}.1.5..1`, `${session}.4294967296..1`, `${session}.7.short.1`, `x.7..1`, null, undefined);
  for (const marker of bad) assert.equal(readMarker(marker), undefined, String(marker));
});

it("takes sixteen zeros, null and nothing for no commitment", () => {
  for (const none of ["", "A".repeat(22), null, undefined]) {
    assert.deepEqual(readPosition(session, 0, none), { session, generation: 0, commitment: "" });
  }
  assert.equal(readPosition(session, "0", commitment), undefined);
  assert.equal(readPosition('x", newest', 0, commitment), undefined);
});

// The protocol's test vectors: for this client's parts, and for the backend that the other tests put before it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { webcrypto } from "node:crypto";
import { it } from "node:test";

import { draw } from "../dist/proof.js";
import { sha256 } from "../dist/sha256.js";
import { decide } from "./model.js";

const vectors = JSON.parse(readFileSync(process.env.PROTOCOL_VECTORS));

it("commits to openings as the protocol says, with WebCrypto and without", async () => {
  for (const hash of [async (bytes) => new Uint8Array(await webcrypto.subtle.digest("SHA-256", bytes)), async (bytes) => sha256(bytes)]) {
    for (const { opening, commitment } of vectors.tokens.openings) {
      assert.deepEqual(await draw(() => new Uint8Array(Buffer.from(opening, "base64url")), hash), { opening, commitment });
    }
  }
});

it("hashes texts of every length like WebCrypto", async () => {
  for (let length = 0; length < 200; length++) {
    const bytes = webcrypto.getRandomValues(new Uint8Array(length));
    assert.deepEqual(sha256(bytes), new Uint8Array(await webcrypto.subtle.digest("SHA-256", bytes)));
  }
});

it("is tested with a backend that decides as the protocol says", () => {
  const cases = vectors.decisions.filter(({ policy }) => policy.on_missing_proof === "refuse");
  assert.ok(cases.length > 50);
  for (const { name, row, presented, proof, now, policy, expect } of cases) {
    const decided = decide({ row, presented, proof, now, session: vectors.session_id, leeway: policy.reuse_leeway });
    assert.deepEqual(decided, expect, name);
  }
});

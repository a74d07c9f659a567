// `rekindle-web/supertokens`: proofs for frontends with SuperTokens' own SDK, whose backend has its sessions on Rekindle.

import { browser } from "./browser.js";
import { prove, tell } from "./memory.js";
import { draw, encode, type Position, readPosition } from "./proof.js";

/** What supertokens-website hands to its `preAPIHook`, as far as it matters here. */
export interface Call {
  readonly action: string;
  readonly requestInit: RequestInit;
}

/**
 * A `preAPIHook` for supertokens-website with `tokenTransferMethod: "header"`: it puts a proof behind the refresh token of each
 * refresh, so that a stolen refresh token alone is worth nothing. Sessions are protected from their first refresh on.
 *
 * A call without a refresh token of Rekindle is left as it is. Rejects if the browser's storage fails and the session has a
 * proof to give: the refresh can be tried again.
 */
export function proving(): <C extends Call>(call: C) => Promise<C> {
  const { storage, random, hash } = browser("rekindle supertokens", undefined);
  return async (call) => {
    const headers = new Headers(call.requestInit.headers);
    const token = /^Bearer (.+)$/.exec(headers.get("authorization") ?? "")?.[1];
    const about = call.action === "REFRESH_SESSION" && token ? readToken(token) : undefined;
    if (!about) return call;
    const drawn = await draw(random, hash);
    const step = (memory: Parameters<typeof prove>[0]) => {
      tell(memory, about);
      return prove(memory, { about, newest: false }, drawn);
    };
    const proof = await storage.update(step).catch((error: unknown) => {
      if (about.commitment) throw error;
    });
    if (!proof) return call;
    const { commitment, opening } = proof;
    headers.set("authorization", `Bearer ${[token, commitment, ...(opening ? [opening] : [])].join("~")}`);
    return { ...call, requestInit: { ...call.requestInit, headers } };
  };
}

/** Where a refresh token says that its session stands: docs/PROTOCOL.md has its 58 bytes. */
export function readToken(token: string): Position | undefined {
  const text = /^rkr_([\w-]{78})(?:\.|$)/.exec(token)?.[1];
  if (!text) return undefined;
  const raw = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
  const hex = Array.from(raw.subarray(2, 18), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const session = hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  return readPosition(session, new DataView(raw.buffer).getUint32(18), encode(raw.subarray(26, 42)));
}

// `rekindle-web/react-native`: sessions in React Native and other places with `fetch`, but without cookies and IndexedDB.

import type { Environment, Storage } from "./environment.js";
import { empty, type Memory } from "./memory.js";
import { Session, type Settings } from "./session.js";
import { sha256 } from "./sha256.js";

export { type Events, type Reason, RekindleError, type RekindleEvent } from "./events.js";
export type { Session } from "./session.js";

/** Where tokens and openings are kept: `expo-secure-store`, a keychain, or AsyncStorage fit as they are. */
export interface KeyValueStorage {
  getItem(key: string): Promise<string | null>;
  /** Resolves when the value is durable. */
  setItem(key: string, value: string): Promise<void>;
}

/** What `rekindle` has to be told. */
export interface Options {
  /** The origins whose requests belong to the session, like `https://api.example.com`; the first has the session's routes. */
  readonly origins: Settings["origins"];
  readonly storage: KeyValueStorage;
  /** Under what path the backend has mounted the session's routes: `/auth` by default. */
  readonly base?: string;
  /** The key in the storage: `rekindle` by default. */
  readonly key?: string;
}

/**
 * The client of this app's session; tokens travel in headers. One for the whole app: two clients on one storage would not wait for
 * each other. `crypto.getRandomValues` must be there; in React Native `react-native-get-random-values` brings it.
 */
export function rekindle({ origins, storage, base = "/auth", key = "rekindle" }: Options): Session {
  const native = globalThis.fetch.bind(globalThis);
  const environment: Environment = {
    fetch: native,
    origin: undefined,
    resolve: (url) => url,
    random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    hash: async (bytes) => sha256(bytes),
    sleep: (milliseconds) => new Promise((resolve) => void setTimeout(resolve, milliseconds)),
    storage: stored(storage, key),
    exclusively: inTurn(),
    marker: async () => undefined,
    post: () => {},
    listen: () => {},
  };
  return new Session({ origins, base, mode: "header" }, environment);
}

/** The memory as JSON under a key. */
function stored(storage: KeyValueStorage, key: string): Storage {
  const turn = inTurn();
  const read = async () => JSON.parse((await storage.getItem(key)) ?? "null") ?? empty();
  return {
    read,
    update: <T>(change: (memory: Memory) => T) =>
      turn(async () => {
        const memory: Memory = await read();
        const result = change(memory);
        await storage.setItem(key, JSON.stringify(memory));
        return result;
      }),
  };
}

/** Runs what it is given one after the other. */
function inTurn() {
  let last: Promise<unknown> = Promise.resolve();
  return <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work, work);
    last = result;
    return result;
  };
}

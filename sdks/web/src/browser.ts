// The browser: IndexedDB, Web Locks, cookies, channels between tabs.

import type { Environment, Storage } from "./environment.js";
import { empty, type Memory } from "./memory.js";

/** How long a tab waits for another one's refresh before it goes on by itself, in milliseconds. */
const COURTESY = 20_000;

/** The environment of a page or a worker. `cookie` is the marker's name; undefined where its cookies are not this page's. */
export function browser(name: string, cookie: string | undefined): Environment {
  const storage = new IndexedDb(name);
  const sleep = (milliseconds: number) => new Promise<void>((resolve) => void setTimeout(resolve, milliseconds));
  const random = (bytes: number) => crypto.getRandomValues(new Uint8Array(bytes));
  const native = globalThis.fetch.bind(globalThis);
  return {
    fetch: native,
    origin: location.origin,
    resolve: (url) => new URL(url, globalThis.document?.baseURI ?? location.href).href,
    random,
    hash: async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)),
    sleep,
    storage,
    exclusively: (work) => (navigator.locks ? locked(name, work, sleep) : leased(storage, work, sleep, random)),
    marker: async () => (cookie ? readCookie(cookie) : undefined),
    ...between(name),
  };
}

/** The channel between the tabs and workers of an origin. */
function between(name: string): Pick<Environment, "post" | "listen"> {
  let channel: BroadcastChannel | undefined;
  const connect = (heard: (message: unknown) => void) => {
    channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }) => heard(data);
  };
  return {
    post: (message) => channel?.postMessage(message),
    listen: (heard) => {
      if (!("BroadcastChannel" in globalThis)) return;
      connect(heard);
      // A message to a page in the cache of the back button would throw it out of there.
      globalThis.addEventListener?.("pagehide", () => {
        channel?.close();
        channel = undefined;
      });
      globalThis.addEventListener?.("pageshow", (event) => (event as PageTransitionEvent).persisted && connect(heard));
    },
  };
}

/** One record, changed in transactions that reach the disk before anybody hears of them. */
class IndexedDb implements Storage {
  readonly #name: string;
  #opened: Promise<IDBDatabase> | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  read(): Promise<Memory> {
    return this.#transact("readonly", (memory) => memory);
  }

  update<T>(change: (memory: Memory) => T): Promise<T> {
    return this.#transact("readwrite", change);
  }

  async #transact<T>(mode: "readonly" | "readwrite", change: (memory: Memory) => T): Promise<T> {
    const transaction = await this.#begin(mode);
    return new Promise((resolve, reject) => {
      const records = transaction.objectStore("memory");
      let result: T;
      const read = records.get(0);
      read.onsuccess = () => {
        const memory: Memory = read.result ?? empty();
        result = change(memory);
        if (mode === "readwrite") records.put(memory, 0);
      };
      transaction.oncomplete = () => resolve(result);
      transaction.onabort = () => reject(transaction.error ?? new Error("the browser gave the transaction up"));
    });
  }

  async #begin(mode: "readonly" | "readwrite"): Promise<IDBTransaction> {
    const begin = async () => (await (this.#opened ??= this.#open())).transaction("memory", mode, { durability: "strict" });
    try {
      return await begin();
    } catch {
      // The browser closed the database, as it may after the back button or when storage is cleared.
      this.#opened = undefined;
      return begin();
    }
  }

  #open(): Promise<IDBDatabase> {
    return new Promise((resolve, reject) => {
      const opening = indexedDB.open(this.#name, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("memory");
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const forget = () => (this.#opened = undefined);
        opening.result.onclose = forget;
        opening.result.onversionchange = () => {
          opening.result.close();
          forget();
        };
        resolve(opening.result);
      };
    });
  }
}

type Sleep = (milliseconds: number) => Promise<void>;

/** Under the Web Lock of this name. */
async function locked<T>(name: string, work: () => Promise<T>, sleep: Sleep): Promise<T> {
  const waited = new AbortController();
  void sleep(COURTESY).then(() => waited.abort());
  let began = false;
  const first = () => {
    began = true;
    return work();
  };
  return navigator.locks.request(name, { signal: waited.signal }, first).catch((error) => {
    if (began) throw error;
    return work();
  }) as Promise<T>;
}

/** Under a lease in the storage, for browsers without Web Locks. */
async function leased<T>(storage: Storage, work: () => Promise<T>, sleep: Sleep, random: (n: number) => Uint8Array) {
  const holder = random(8).join();
  const take = (memory: Memory) => {
    const now = Date.now();
    const { lease } = memory;
    // One that ends too far in the future was made before the clock went back.
    const isHeld = lease && lease.until > now && lease.until <= now + COURTESY;
    if (!isHeld) memory.lease = { holder, until: now + COURTESY };
    return !isHeld;
  };
  // Storage that fails cannot be waited for.
  for (let waited = 0; waited < COURTESY && !(await storage.update(take).catch(() => true)); waited += 100) await sleep(100);
  try {
    return await work();
  } finally {
    await storage.update((memory) => memory.lease?.holder === holder && delete memory.lease).catch(() => {});
  }
}

async function readCookie(name: string): Promise<string | null | undefined> {
  if (globalThis.document) {
    const pair = document.cookie.split("; ").find((each) => each.startsWith(`${name}=`));
    return pair?.slice(name.length + 1) ?? null;
  }
  const store = (globalThis as { cookieStore?: { get(name: string): Promise<{ value: string } | null> } }).cookieStore;
  return store && ((await store.get(name))?.value ?? null);
}

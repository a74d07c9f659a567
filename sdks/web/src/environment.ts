// What a client needs of the place where it runs. Time, randomness and input come from here alone.

import type { Memory } from "./memory.js";
import type { Hash } from "./proof.js";

/** A browser, a mobile app, or a test. */
export interface Environment {
  /** The platform's own, before anybody wraps it. */
  fetch(url: string | Request, init?: RequestInit): Promise<Response>;
  /** The page's own origin; undefined where there are no pages. */
  readonly origin: string | undefined;
  /** The absolute form of a URL. */
  resolve(url: string): string;
  /** Random bytes that nobody can guess. */
  random(bytes: number): Uint8Array<ArrayBuffer>;
  readonly hash: Hash;
  /** Resolves after so many milliseconds. */
  sleep(milliseconds: number): Promise<void>;
  readonly storage: Storage;
  /** Does the work while no other tab or worker does theirs. A courtesy: nothing breaks where it is not kept. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** The marker: null if there is none, undefined if this place cannot read it. */
  marker(): Promise<string | null | undefined>;
  /** Tells the other tabs and workers. */
  post(message: unknown): void;
  /** Hears what they tell. */
  listen(heard: (message: unknown) => void): void;
}

/** Where a client's memory is kept, for all its tabs and workers. */
export interface Storage {
  /** The memory as it is now. */
  read(): Promise<Memory>;
  /**
   * Reads, changes and writes the memory in one step that nobody else's comes between. It is durable when this resolves. Rejects if
   * there is no storage, or if it failed; nothing is changed then.
   */
  update<T>(change: (memory: Memory) => T): Promise<T>;
}

// What was found a moment ago, by what was asked.

"use strict";

/** For how many milliseconds it is believed. */
const BELIEVED_FOR = 500;

/** Bounded, and forgotten as a whole whenever anything ends. */
class Memory {
  #most;
  /** By what was asked: until when to believe it, when it expires, and what was found. */
  #known = new Map();

  constructor(most) {
    this.#most = most;
  }

  get(asked) {
    const known = this.#known.get(asked);
    return known && known.until > performance.now() && known.expiresAt > Date.now() ? known.found : undefined;
  }

  /** `expiresAt`: as `Date.now` counts. */
  set(asked, found, expiresAt) {
    const now = performance.now();
    this.#known.delete(asked);
    // The oldest come first. They hold tokens: none stays for longer than it is of use.
    for (const [oldest, { until }] of this.#known) {
      if (until > now && this.#known.size < this.#most) break;
      this.#known.delete(oldest);
    }
    this.#known.set(asked, { until: now + BELIEVED_FOR, expiresAt, found });
  }

  delete(asked) {
    this.#known.delete(asked);
  }

  clear() {
    this.#known.clear();
  }
}

module.exports = { Memory };

// `rekindle-web`: sessions in pages and workers.

import { browser } from "./browser.js";
import type { Storage } from "./environment.js";
import { empty, type Memory } from "./memory.js";
import { Session, type Settings } from "./session.js";

export { type Events, type Reason, RekindleError, type RekindleEvent } from "./events.js";
export type { Answer, Passage, Session, Settings } from "./session.js";

/** What can be told to `rekindle`; nothing has to be. */
export interface Options {
  /** The origins whose requests belong to the session; the first has the session's routes. By default the page's own. */
  readonly origins?: Settings["origins"];
  /** Under what path the backend has mounted the session's routes: `/auth` by default. */
  readonly base?: string;
  /** How tokens travel: `cookie` by default; `header` for mobile web views and other places without cookies. */
  readonly mode?: Settings["mode"];
  /** What the backend puts before the names of its cookies, if it was told to. */
  readonly prefix?: string;
}

/**
 * The client of this page's or worker's session. It wraps nothing by itself: see `Session.install` and `Session.fetch`.
 *
 * Throws a `TypeError` if an origin is not one.
 */
export function rekindle(options: Options = {}): Session {
  const { base = "/auth", mode = "cookie", prefix } = options;
  const own = location.origin;
  const origins = options.origins ?? [own];
  for (const origin of origins) {
    if (new URL(origin).origin !== origin) throw new TypeError(`not an origin, like https://example.com: ${origin}`);
  }
  // Browsers take the prefix only over TLS, so a backend on http://localhost leaves it out.
  const cookie = `${location.protocol === "https:" ? "__Host-" : ""}${prefix ? `${prefix}-` : ""}rekindle-session`;
  const environment = browser(`rekindle ${origins[0]}${base}`, origins[0] === own ? cookie : undefined);
  // Cookies go on without storage, which other tabs need; tokens in headers need one, and no other tab has them.
  const storage = mode === "header" ? orHere(environment.storage) : environment.storage;
  const session = new Session({ origins, base, mode }, { ...environment, storage });
  globalThis.addEventListener?.("pageshow", (event) => {
    if ((event as PageTransitionEvent).persisted) void session.resume();
  });
  return session;
}

/** The storage, or where the browser gives none, as in frames on other sites: this page's own memory, until it is closed. */
function orHere(storage: Storage): Storage {
  let here: Memory | undefined;
  const tried = storage.read().catch(() => void (here = empty()));
  return {
    read: async () => {
      await tried;
      return here ? structuredClone(here) : storage.read();
    },
    update: async (change) => {
      await tried;
      return here ? change(here) : storage.update(change);
    },
  };
}

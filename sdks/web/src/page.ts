// `refresh.js`: the script of the page that a backend answers to a page request whose access token has expired. It refreshes the
// session, and loads the same page again:
//
// <script src="/auth/session/refresh.js" data-sign-in="/login"></script>
// <p id="offline" hidden>The server cannot be reached.</p>

import { rekindle } from "./index.js";

/** A page that is loaded again and again would never end: after so many rounds within so many milliseconds, its visitor signs in. */
const ROUNDS = 2;
const WINDOW = 10_000;

const { src, dataset } = document.currentScript as HTMLScriptElement;
const base = new URL(src).pathname.replace(/\/session\/refresh\.js$/, "");
const { prefix } = dataset;

function isLoop(): boolean {
  const key = `rekindle rounds ${location.pathname}${location.search}`;
  const now = Date.now();
  const since: number[] = JSON.parse(sessionStorage.getItem(key) ?? "[]");
  const rounds = since.filter((at) => at <= now && now - at < WINDOW);
  const isLoop = rounds.length >= ROUNDS;
  sessionStorage.setItem(key, JSON.stringify(isLoop ? [] : [...rounds, now]));
  return isLoop;
}

function signIn(): void {
  const target = new URL(dataset["signIn"] ?? "/", location.href);
  // Never to another origin, whatever the page says.
  location.replace(target.origin === location.origin ? target.href : "/");
}

async function refresh(): Promise<void> {
  const session = rekindle({ base, ...(prefix && { prefix }) });
  if (!isLoop() && (await session.attemptRefreshingSession())) location.reload();
  else signIn();
}

refresh().catch((error) => {
  if (!(error instanceof TypeError)) return signIn();
  document.getElementById("offline")?.removeAttribute("hidden");
  addEventListener("online", () => location.reload(), { once: true });
});

// `refresh.js`: the script of the page that a backend answers to a page request whose access token has expired.
//
// <script src="/auth/session/refresh.js" data-sign-in="/login"></script>

import { rekindle } from "./index.js";

/** How often one page may be tried before its visitor is sent to sign in. */
const TRIES = 2;
const COUNTER = "rekindle tries";

const { src, dataset } = document.currentScript as HTMLScriptElement;
const base = new URL(src).pathname.replace(/\/session\/refresh\.js$/, "");

async function refresh(): Promise<void> {
  const [page, tries] = JSON.parse(sessionStorage.getItem(COUNTER) ?? "[]");
  const count = page === location.href ? tries : 0;
  const lives = count < TRIES && (await rekindle({ base }).attemptRefreshingSession());
  if (!lives) {
    sessionStorage.removeItem(COUNTER);
    const target = new URL(dataset["signIn"] ?? "/", location.origin);
    // Never to another origin, whatever the page says.
    return location.replace(target.origin === location.origin ? target.href : "/");
  }
  sessionStorage.setItem(COUNTER, JSON.stringify([location.href, count + 1]));
  location.replace(location.href);
}

/** No answer: the visitor sees the page that the server sent, and it tries again when there is a network. */
function wait(): void {
  addEventListener("online", () => location.reload(), { once: true });
}

refresh().catch(wait);

// Loaded by the page that answers a page request whose access token has expired: refreshes the session and loads the page again.
"use strict";
(() => {
  const { src, dataset } = document.currentScript;
  const route = new URL("refresh", src);
  const rounds = `rekindle rounds ${location.pathname}${location.search}`;
  const WINDOW = 10000;
  const ATTEMPTS = 4;

  const signIn = () => location.replace(dataset.signIn);
  const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // A page that comes back to this one again and again would never end.
  const isLoop = () => {
    const now = Date.now();
    const before = JSON.parse(sessionStorage.getItem(rounds) ?? "[]").filter((at) => at <= now && now - at < WINDOW);
    if (before.length >= 2) {
      sessionStorage.removeItem(rounds);
      return true;
    }
    sessionStorage.setItem(rounds, JSON.stringify([...before, now]));
    return false;
  };

  const refresh = async () => {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const headers = { "Rekindle-Request": "1" };
      const answer = await fetch(route, { method: "POST", headers, credentials: "same-origin", cache: "no-store" }).catch(() => null);
      // Superseded: another tab was faster, and its cookies are here already.
      if (answer?.ok || answer?.status === 409) return location.reload();
      if (answer && answer.status < 500 && answer.status !== 429) return signIn();
      await sleep(500 * 2 ** attempt);
    }
    document.getElementById("offline").hidden = false;
  };

  addEventListener("DOMContentLoaded", () => {
    if (route.origin !== location.origin) return;
    if (isLoop()) signIn();
    else void refresh();
  });
})();

// A service worker that is in the same session as its pages.

import { rekindle } from "rekindle-web";

const session = rekindle();

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", (event) => {
  const { method, path } = event.data;
  const asked = async () => {
    const answer = await session.fetch(path, { method });
    return { status: answer.status, body: await answer.text() };
  };
  event.waitUntil(asked().then((answer) => event.ports[0].postMessage(answer), (error) => event.ports[0].postMessage(String(error))));
});

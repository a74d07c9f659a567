// The page's script: rekindle-web as its README sets it up, and what the tests ask of it.

import axios from "axios";
import { rekindle } from "rekindle-web";
import { installXhr } from "rekindle-web/xhr";

const violations = [];
addEventListener("securitypolicyviolation", ({ violatedDirective }) => violations.push(violatedDirective));

const native = fetch;
const session = rekindle({ mode: new URLSearchParams(location.search).get("mode") ?? "cookie" });
session.install();
installXhr(session);

const events = [];
for (const type of ["created", "refreshed", "signedOut", "expired", "theft", "offline", "failed"]) {
  session.on(type, (event) => events.push(event));
}

const by = {
  fetch: async (method, path, form) => {
    const answer = await fetch(path, { method, body: form && new URLSearchParams(form) });
    return { status: answer.status, body: await answer.text() };
  },
  axios: async (method, path) => {
    const answer = await axios({ method, url: path, validateStatus: null, responseType: "text" });
    return { status: answer.status, body: answer.data };
  },
  xhr: (method, path) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const heard = [];
      for (const type of ["readystatechange", "loadstart", "load", "error", "loadend"]) {
        request.addEventListener(type, () => heard.push(type === "readystatechange" ? request.readyState : type));
      }
      request.responseType = "blob";
      request.onload = async () => resolve({ status: request.status, body: await request.response.text(), heard });
      request.onerror = () => reject(new Error("network"));
      request.open(method, path);
      request.send();
    }),
};

/** Asks again while the network or a server fails. */
const insist = async (method, path) => {
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await by.fetch(method, path);
      if (answer.status < 500 || attempt === 30) return answer;
    } catch (error) {
      if (attempt === 30) throw error;
    }
  }
};

/** Lets the page's service worker ask. */
const byWorker = async (method, path) => {
  const { active } = await navigator.serviceWorker.ready;
  const { port1, port2 } = new MessageChannel();
  const answered = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
  active.postMessage({ method, path }, [port2]);
  return answered;
};

window.page = { session, native, events, violations, ...by, insist, byWorker };

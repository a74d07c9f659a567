// The page's script: supertokens-website as its documentation sets it up, and what the test asks of it.

import Session from "supertokens-website";

import { proving } from "../../../../../sdks/web/src/supertokens";

const events = [];
Session.init({
  apiDomain: location.origin,
  apiBasePath: "/auth",
  onHandleEvent: ({ action }) => events.push(action),
  // As docs/SUPERTOKENS.md says.
  ...(location.search === "?proving" && { tokenTransferMethod: "header", preAPIHook: proving() }),
});

const ask = async (method, path, body) => {
  const headers = body ? { "content-type": "application/json" } : {};
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  return { status: answer.status, body: await answer.text() };
};

/** Asks again while the network or a server fails. */
const insist = async (method, path, body) => {
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await ask(method, path, body);
      if (answer.status < 500 || attempt === 30) return answer;
    } catch (error) {
      if (attempt === 30) throw error;
    }
  }
};

window.page = { Session, ask, events, insist };

// A visitor of an app: a browser's share in cookies and headers, without a browser.

"use strict";

exports.Visitor = class {
  #base;
  #mode;
  #cookies = new Map();
  #antiCsrf;

  /** `mode`: "cookie", or "header" for tokens in headers. */
  constructor(base, mode = "cookie") {
    this.#base = base;
    this.#mode = mode;
  }

  /** One that has the same cookies and tokens: who stole them. */
  twin() {
    const twin = new exports.Visitor(this.#base, this.#mode);
    twin.#cookies = new Map(this.#cookies);
    twin.#antiCsrf = this.#antiCsrf;
    return twin;
  }

  /** Forged cookies, for every path. */
  set cookies(values) {
    this.#cookies = new Map(Object.entries(values).map(([name, value]) => [name, { value, path: "/" }]));
  }

  /** Whether there is an anti-CSRF token to send. */
  get hasAntiCsrf() {
    return this.#antiCsrf !== undefined;
  }

  /** The access token. */
  get accessToken() {
    return this.#cookies.get("sAccessToken")?.value;
  }

  /** A request; `antiCsrf: false` leaves the token out, as another site's form would. Status and parsed body. */
  async ask(method, path, body, { antiCsrf = true } = {}) {
    const headers = { "st-auth-mode": this.#mode };
    if (body) headers["content-type"] = "application/json";
    if (antiCsrf && this.#antiCsrf) headers["anti-csrf"] = this.#antiCsrf;
    const refreshes = path === "/auth/session/refresh";
    if (this.#mode === "header") {
      const token = this.#cookies.get(refreshes ? "sRefreshToken" : "sAccessToken");
      if (token) headers.authorization = `Bearer ${token.value}`;
    } else {
      const sent = [...this.#cookies].filter(([, cookie]) => path.startsWith(cookie.path));
      headers.cookie = sent.map(([name, { value }]) => `${name}=${value}`).join("; ");
    }
    const answer = await fetch(this.#base + path, { method, headers, body: body && JSON.stringify(body) });
    this.#keep(answer.headers);
    const text = await answer.text();
    const json = answer.headers.get("content-type")?.includes("json");
    return { status: answer.status, body: json ? JSON.parse(text) : text };
  }

  refresh() {
    return this.ask("POST", "/auth/session/refresh");
  }

  #keep(headers) {
    this.#antiCsrf = headers.get("anti-csrf") ?? this.#antiCsrf;
    for (const [name, header] of [["sAccessToken", "st-access-token"], ["sRefreshToken", "st-refresh-token"]]) {
      const value = headers.get(header);
      if (value === "") this.#cookies.delete(name);
      else if (value !== null) this.#cookies.set(name, { value, path: "/" });
    }
    for (const line of headers.getSetCookie()) {
      const [pair, ...attributes] = line.split("; ");
      const [name, value] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
      const path = attributes.find((a) => a.toLowerCase().startsWith("path="))?.slice(5) ?? "/";
      // Expired access tokens are kept, as if this machine's clock were slow: the SDK must see that they have expired.
      if (value === "" || value === '""') this.#cookies.delete(name);
      else this.#cookies.set(name, { value, path });
    }
  }
};

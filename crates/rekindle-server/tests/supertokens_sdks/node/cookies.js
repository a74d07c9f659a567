// Cookies for apps that keep tokens themselves.

"use strict";

/** The cookie of this name in a request of Node's. */
exports.cookie = (req, name) => {
  const pair = (req.headers.cookie ?? "").split("; ").find((pair) => pair.startsWith(`${name}=`));
  return pair && decodeURIComponent(pair.slice(name.length + 1));
};

const REFRESH_PATH = "/auth/session/refresh";

/** Keeps what there is of a session's tokens. */
exports.keepTokens = (res, { accessToken, refreshToken, idRefreshToken, antiCsrfToken }) => {
  if (accessToken) setCookie(res, "sAccessToken", accessToken, "/");
  if (refreshToken) setCookie(res, "sRefreshToken", refreshToken, REFRESH_PATH);
  if (idRefreshToken) setCookie(res, "sIdRefreshToken", idRefreshToken, "/");
  if (antiCsrfToken) res.setHeader("anti-csrf", antiCsrfToken);
};

/** Removes a session's tokens. */
exports.dropTokens = (res) => {
  setCookie(res, "sAccessToken", undefined, "/");
  setCookie(res, "sRefreshToken", undefined, REFRESH_PATH);
  setCookie(res, "sIdRefreshToken", undefined, "/");
};

const setCookie = (res, name, value, path) => {
  const expires = value ? "" : "; Expires=Thu, 01 Jan 1970 00:00:00 GMT";
  res.appendHeader("set-cookie", `${name}=${encodeURIComponent(value ?? "")}; Path=${path}; HttpOnly${expires}`);
};

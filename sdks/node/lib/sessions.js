// `rekindle.sessions`: the shapes of SDKs whose tokens are `<tag>:<token>`, and that name product and environment in each call.

"use strict";

const { RekindleError } = require("./errors");

class Sessions {
  #rekindle;
  #others = new Map();

  constructor(rekindle) {
    this.#rekindle = rekindle;
  }

  /** Starts a session with this data; whose it is, the definition's selector finds in it. */
  async start({ product, env, tag, data, cache, identifier, expiresIn, claims }) {
    const rekindle = await this.#at({ product, env, tag });
    return shown(await rekindle.start({ data, claims, userId: identifier, expiresIn, idempotencyKey: cache }));
  }

  /** New tokens for a refresh token. */
  async refresh({ product, env, tag, refreshToken, proof }) {
    const rekindle = await this.#at({ product, env, tag });
    return shown(await rekindle.refresh({ refreshToken: bare(refreshToken), proof }));
  }

  /** Whether a token is good, and what its session's data is. */
  async verify({ product, env, tag, token }) {
    try {
      const { sessionId, expiresAt, data } = await this.#looked({ product, env, tag, token });
      return { valid: true, sessionId, expiresAt, data };
    } catch (error) {
      if (!(error instanceof RekindleError) || error.isTransient) throw error;
      return { valid: false, reason: error.code };
    }
  }

  /** The data of a token's session. */
  async decrypt({ product, env, tag, token }) {
    return (await this.#looked({ product, env, tag, token })).data;
  }

  /** Ends a session, or all of a user's. */
  async revoke({ product, env, tag, sessionId, identifier }) {
    const rekindle = await this.#at({ product, env, tag });
    if (sessionId !== undefined) await rekindle.revoke(sessionId);
    else await rekindle.revokeUser(identifier);
  }

  /** Ends all of a user's sessions, or all but one; how many that were. */
  async revokeAll({ product, env, tag, identifier, excludeCurrentSession }) {
    const rekindle = await this.#at({ product, env, tag });
    return { revokedCount: await rekindle.revokeUser(identifier, { except: excludeCurrentSession }) };
  }

  /** The active sessions, of a user or of all. */
  async listActive({ product, env, tag, identifier, limit, after }) {
    const rekindle = await this.#at({ product, env, tag });
    const { sessions, next } = await rekindle.list({ userId: identifier, state: "active", limit, after });
    const shown = sessions.map(({ id, createdAt, idleExpiresAt, state }) => ({
      sessionId: id,
      startAt: createdAt,
      endAt: idleExpiresAt,
      active: state === "active",
    }));
    return { sessions: shown, next };
  }

  async #looked({ product, env, tag, token }) {
    const rekindle = await this.#at({ product, env, tag: tag ?? tagOf(token) });
    const { sessionId, expiresAt } = await rekindle.verify(bare(token));
    return { sessionId, expiresAt, data: (await rekindle.read(sessionId)).data };
  }

  /** What is not named is as the handle says. */
  async #at({ product, env, tag }) {
    const own = this.#rekindle.place;
    const place = { product: product ?? own.product, env: env ?? own.env, tag: tag ?? own.tag };
    if (place.product === own.product && place.env === own.env && place.tag === own.tag) return this.#rekindle;
    const name = [place.product, place.env, place.tag].join("/");
    if (!this.#others.has(name)) {
      const other = this.#rekindle.at(place);
      this.#others.set(name, other);
      other.catch(() => this.#others.delete(name));
    }
    return this.#others.get(name);
  }
}

/** The token behind a tag: neither has a colon in it. */
const bare = (token) => String(token).slice(String(token).lastIndexOf(":") + 1);

const tagOf = (token) => (String(token).includes(":") ? String(token).slice(0, String(token).lastIndexOf(":")) : undefined);

const shown = ({ session, accessToken, accessTokenExpiresAt, refreshToken, refreshTokenExpiresAt }) => ({
  token: `${session.tag}:${accessToken}`,
  refreshToken: `${session.tag}:${refreshToken}`,
  sessionId: session.id,
  expiresAt: accessTokenExpiresAt,
  refreshExpiresAt: refreshTokenExpiresAt,
});

module.exports = { Sessions };

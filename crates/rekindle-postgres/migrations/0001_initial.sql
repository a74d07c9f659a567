-- Every moment is in milliseconds since 1970 (UTC). Numbers are bigint throughout.
-- A scope is `product/env`. Scopes and user ids are bytea: they are compared byte by byte, whatever the database's collation,
-- and a user id may hold any character, NUL included. Free text is kept as a JSON string, because text holds no NUL.
-- IF NOT EXISTS throughout: where a migration is not one transaction, it can be repeated after it broke off.

-- A refresh changes columns that no index holds, and pages keep room for the row's next version: the update stays on its page
-- and touches no index (a heap-only tuple).
CREATE TABLE IF NOT EXISTS sessions (
    id                  uuid PRIMARY KEY,
    generation          bigint NOT NULL,
    commitment          bytea NOT NULL,
    issued_at           bigint NOT NULL, -- seconds
    kid                 bigint NOT NULL,
    confirmed           boolean NOT NULL,
    min_generation      bigint NOT NULL,
    idle_expires_at     bigint NOT NULL,
    expires_at          bigint NOT NULL,
    created_at          bigint NOT NULL,
    ended_at            bigint,
    ended_reason        text,
    version             bigint NOT NULL,
    scope               bytea NOT NULL,
    tag                 text NOT NULL,
    definition_version  bigint NOT NULL,
    user_id             bytea NOT NULL,
    previous_session_id uuid,
    auth                text NOT NULL,
    client              text NOT NULL,
    claims              text NOT NULL,
    data                text NOT NULL
) WITH (fillfactor = 75);
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (scope, user_id, id);

CREATE TABLE IF NOT EXISTS events (
    session_id uuid NOT NULL,
    id         uuid NOT NULL,
    at         bigint NOT NULL,
    kind       text NOT NULL,
    outcome    text,
    generation bigint NOT NULL,
    rest       text NOT NULL,
    PRIMARY KEY (session_id, id)
);

CREATE TABLE IF NOT EXISTS idempotency (
    scope      bytea NOT NULL,
    key        bytea NOT NULL,
    request    bytea NOT NULL,
    session_id uuid NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX IF NOT EXISTS idempotency_by_session ON idempotency (session_id);
CREATE INDEX IF NOT EXISTS idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE IF NOT EXISTS bans (
    scope   bytea NOT NULL,
    user_id bytea NOT NULL,
    at      bigint NOT NULL,
    until   bigint,
    reason  text, -- a JSON string
    PRIMARY KEY (scope, user_id)
);
CREATE INDEX IF NOT EXISTS bans_by_end ON bans (until);

-- What is decided about a user as a whole is decided under the lock of one of these rows: see `UserLock`.
CREATE TABLE IF NOT EXISTS user_locks (
    n bigint PRIMARY KEY
);
INSERT INTO user_locks SELECT generate_series(0, 255) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS revocations (
    seq                bigint PRIMARY KEY,
    scope              bytea NOT NULL,
    session_id         uuid NOT NULL,
    below_generation   bigint, -- or what follows
    reason             text,
    session_expires_at bigint,
    at                 bigint NOT NULL,
    expires_at         bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS revocations_by_expiry ON revocations (expires_at);

-- One row: the feed's last number. Its lock is held until the commit, so that entries become visible in their order.
CREATE TABLE IF NOT EXISTS feed (
    id       bigint PRIMARY KEY CHECK (id = 1),
    last_seq bigint NOT NULL
);
INSERT INTO feed (id, last_seq) VALUES (1, 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS outbox (
    id         uuid PRIMARY KEY,
    scope      bytea NOT NULL,
    session_id uuid,
    due        bigint NOT NULL,
    attempts   bigint NOT NULL,
    event      text NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_by_session ON outbox (session_id, id);

CREATE TABLE IF NOT EXISTS products (
    tag            text PRIMARY KEY,
    name           text NOT NULL, -- a JSON string
    longest_access bigint NOT NULL -- seconds: of any definition that it ever had
);

CREATE TABLE IF NOT EXISTS environments (
    product text NOT NULL REFERENCES products ON DELETE CASCADE,
    slug    text NOT NULL,
    name    text NOT NULL, -- a JSON string
    active  boolean NOT NULL,
    PRIMARY KEY (product, slug)
);

-- A deleted definition has no present version; its versions stay readable for the sessions that started with them.
CREATE TABLE IF NOT EXISTS definitions (
    product text NOT NULL REFERENCES products ON DELETE CASCADE,
    tag     text NOT NULL,
    current bigint,
    PRIMARY KEY (product, tag)
);

CREATE TABLE IF NOT EXISTS definition_versions (
    product    text NOT NULL,
    tag        text NOT NULL,
    version    bigint NOT NULL,
    definition text NOT NULL,
    PRIMARY KEY (product, tag, version),
    FOREIGN KEY (product, tag) REFERENCES definitions ON DELETE CASCADE
);

-- Here and in `api_keys`, `seq` is the configuration's version that brought the row, so that rows have an order.
CREATE TABLE IF NOT EXISTS signing_keys (
    kid        text PRIMARY KEY,
    seq        bigint NOT NULL,
    scope      bytea NOT NULL,
    algorithm  text NOT NULL,
    public_jwk text NOT NULL,
    wrapped    bytea NOT NULL,
    created_at bigint NOT NULL,
    signs_from bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS secret_checks (
    kid         bigint PRIMARY KEY,
    check_value bytea NOT NULL
);

CREATE TABLE IF NOT EXISTS api_keys (
    id          bytea PRIMARY KEY,
    seq         bigint NOT NULL,
    name        text NOT NULL, -- a JSON string
    hash        bytea NOT NULL UNIQUE,
    permissions text NOT NULL,
    created_at  bigint NOT NULL,
    revoked_at  bigint
);

CREATE TABLE IF NOT EXISTS audit (
    id    uuid PRIMARY KEY,
    entry text NOT NULL
);

-- One row: grows with every change to products, environments, definitions, signing keys or API keys. Its lock is taken first,
-- so that such changes happen one after the other.
CREATE TABLE IF NOT EXISTS config (
    id      bigint PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL
);
INSERT INTO config (id, version) VALUES (1, 0) ON CONFLICT DO NOTHING;

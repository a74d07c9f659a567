-- Every moment is in milliseconds since 1970 (UTC), every id 16 bytes, every hash its raw bytes.
-- User ids are BLOBs, because they may hold any character, NUL included, and are compared byte by byte.

-- The short numbers that stand for (product, environment). They are never removed, so that processes may remember them.
CREATE TABLE scopes (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    product TEXT NOT NULL,
    env     TEXT NOT NULL,
    UNIQUE (product, env)
) STRICT;

-- What a refresh changes comes first and has a fixed size: the row is then overwritten in place. No index holds any of it.
CREATE TABLE sessions (
    id                  BLOB NOT NULL PRIMARY KEY,
    generation          INTEGER NOT NULL,
    commitment          BLOB NOT NULL,
    issued_at           INTEGER NOT NULL, -- seconds
    kid                 INTEGER NOT NULL,
    confirmed           INTEGER NOT NULL,
    min_generation      INTEGER NOT NULL,
    idle_expires_at     INTEGER NOT NULL,
    expires_at          INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    ended_at            INTEGER,
    ended_reason        TEXT,
    version             INTEGER NOT NULL,
    scope               INTEGER NOT NULL REFERENCES scopes,
    tag                 TEXT NOT NULL,
    definition_version  INTEGER NOT NULL,
    user_id             BLOB NOT NULL,
    previous_session_id BLOB,
    auth                TEXT NOT NULL,
    client              TEXT NOT NULL,
    claims              TEXT NOT NULL,
    data                TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (scope, user_id, id);

CREATE TABLE events (
    session_id BLOB NOT NULL,
    id         BLOB NOT NULL,
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    outcome    TEXT,
    generation INTEGER NOT NULL,
    rest       TEXT NOT NULL,
    PRIMARY KEY (session_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    scope      INTEGER NOT NULL REFERENCES scopes,
    key        BLOB NOT NULL,
    request    BLOB NOT NULL,
    session_id BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_session ON idempotency (session_id);
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE bans (
    scope   INTEGER NOT NULL REFERENCES scopes,
    user_id BLOB NOT NULL,
    at      INTEGER NOT NULL,
    until   INTEGER,
    reason  TEXT,
    PRIMARY KEY (scope, user_id)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a cursor must never meet the same number twice.
CREATE TABLE revocations (
    seq                INTEGER PRIMARY KEY AUTOINCREMENT,
    scope              INTEGER NOT NULL REFERENCES scopes,
    session_id         BLOB NOT NULL,
    below_generation   INTEGER, -- or what follows
    reason             TEXT,
    session_expires_at INTEGER,
    at                 INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

CREATE TABLE outbox (
    id         BLOB NOT NULL PRIMARY KEY,
    scope      INTEGER NOT NULL REFERENCES scopes,
    session_id BLOB,
    due        INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    event      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_by_session ON outbox (session_id, id);

CREATE TABLE products (
    tag            TEXT NOT NULL PRIMARY KEY,
    name           TEXT NOT NULL,
    longest_access INTEGER NOT NULL DEFAULT 0 -- seconds: of any definition that it ever had
) STRICT, WITHOUT ROWID;

CREATE TABLE environments (
    product TEXT NOT NULL REFERENCES products ON DELETE CASCADE,
    slug    TEXT NOT NULL,
    name    TEXT NOT NULL,
    active  INTEGER NOT NULL,
    PRIMARY KEY (product, slug)
) STRICT, WITHOUT ROWID;

-- A deleted definition has no present version; its versions stay readable for the sessions that started with them.
CREATE TABLE definitions (
    product TEXT NOT NULL REFERENCES products ON DELETE CASCADE,
    tag     TEXT NOT NULL,
    current INTEGER,
    PRIMARY KEY (product, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE definition_versions (
    product    TEXT NOT NULL,
    tag        TEXT NOT NULL,
    version    INTEGER NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (product, tag, version),
    FOREIGN KEY (product, tag) REFERENCES definitions ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
    kid        TEXT NOT NULL UNIQUE,
    seq        INTEGER PRIMARY KEY,
    scope      INTEGER NOT NULL REFERENCES scopes,
    algorithm  TEXT NOT NULL,
    public_jwk TEXT NOT NULL,
    wrapped    BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    signs_from INTEGER NOT NULL
) STRICT;

CREATE TABLE secret_checks (
    kid      INTEGER PRIMARY KEY,
    check_value BLOB NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id          TEXT NOT NULL UNIQUE,
    seq         INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    hash        BLOB NOT NULL UNIQUE,
    permissions TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;

CREATE TABLE audit (
    id         BLOB NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    ip         TEXT,
    request_id TEXT
) STRICT, WITHOUT ROWID;

-- One row: grows with every change to products, environments, definitions, signing keys or API keys.
CREATE TABLE config (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO config (id, version) VALUES (1, 0);

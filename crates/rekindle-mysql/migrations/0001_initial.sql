-- Every moment is in milliseconds since 1970 (UTC), every id 16 bytes, every hash its raw bytes.
-- Texts are compared character by character (utf8mb4_bin). User ids are VARBINARY: they may hold any character, NUL
-- included, and are compared byte by byte, without padding.
-- Each statement may be carried out again: DDL commits by itself, so a migration that was cut off is begun anew.

-- No index holds what a refresh changes, and all of it has a fixed size: the row is overwritten in place.
CREATE TABLE IF NOT EXISTS sessions (
    id                  BINARY(16) NOT NULL PRIMARY KEY,
    product             VARCHAR(63) NOT NULL,
    env                 VARCHAR(32) NOT NULL,
    tag                 VARCHAR(63) NOT NULL,
    definition_version  INT UNSIGNED NOT NULL,
    user_id             VARBINARY(256) NOT NULL,
    generation          INT UNSIGNED NOT NULL,
    commitment          BINARY(16) NOT NULL,
    issued_at           INT UNSIGNED NOT NULL COMMENT 'seconds',
    kid                 TINYINT UNSIGNED NOT NULL,
    confirmed           TINYINT UNSIGNED NOT NULL,
    min_generation      INT UNSIGNED NOT NULL,
    idle_expires_at     BIGINT NOT NULL,
    expires_at          BIGINT NOT NULL,
    created_at          BIGINT NOT NULL,
    ended_at            BIGINT,
    ended_reason        VARCHAR(32),
    version             BIGINT UNSIGNED NOT NULL,
    previous_session_id BINARY(16),
    auth                MEDIUMTEXT NOT NULL,
    client              MEDIUMTEXT NOT NULL,
    claims              MEDIUMTEXT NOT NULL,
    data                MEDIUMTEXT NOT NULL,
    KEY sessions_by_scope (product, env, id),
    KEY sessions_by_user (product, env, user_id, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A session's events go with it. The foreign key also makes a Galera cluster notice an event that races with a removal.
CREATE TABLE IF NOT EXISTS events (
    session_id BINARY(16) NOT NULL,
    id         BINARY(16) NOT NULL,
    at         BIGINT NOT NULL,
    kind       VARCHAR(32) NOT NULL,
    outcome    VARCHAR(32),
    rest       MEDIUMTEXT NOT NULL COMMENT 'JSON: what the other columns do not hold',
    PRIMARY KEY (session_id, id),
    CONSTRAINT events_of_session FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Starts and bans of one user take turns at its row. It says nothing else: a row may be removed and made again.
CREATE TABLE IF NOT EXISTS user_locks (
    product VARCHAR(63) NOT NULL,
    env     VARCHAR(32) NOT NULL,
    user_id VARBINARY(256) NOT NULL,
    turn    BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (product, env, user_id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS idempotency (
    product    VARCHAR(63) NOT NULL,
    env        VARCHAR(32) NOT NULL,
    key_hash   BINARY(32) NOT NULL,
    request    BINARY(32) NOT NULL,
    session_id BINARY(16) NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (product, env, key_hash),
    KEY idempotency_by_session (session_id),
    KEY idempotency_by_expiry (expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS bans (
    product      VARCHAR(63) NOT NULL,
    env          VARCHAR(32) NOT NULL,
    user_id      VARBINARY(256) NOT NULL,
    banned_at    BIGINT NOT NULL,
    banned_until BIGINT,
    reason       MEDIUMTEXT,
    PRIMARY KEY (product, env, user_id),
    KEY bans_by_end (banned_until)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Not AUTO_INCREMENT: numbers would become visible out of order, and on a cluster grow unevenly. See feed.
CREATE TABLE IF NOT EXISTS revocations (
    seq                BIGINT NOT NULL PRIMARY KEY,
    product            VARCHAR(63) NOT NULL,
    env                VARCHAR(32) NOT NULL,
    session_id         BINARY(16) NOT NULL,
    below_generation   INT UNSIGNED COMMENT 'or what follows',
    reason             VARCHAR(32),
    session_expires_at BIGINT,
    at                 BIGINT NOT NULL,
    expires_at         BIGINT NOT NULL,
    KEY revocations_by_expiry (expires_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row. Whoever writes to the feed updates it last before the commit, so that numbers become visible in their order.
CREATE TABLE IF NOT EXISTS feed (
    id       TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    last_seq BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS outbox (
    id         BINARY(16) NOT NULL PRIMARY KEY,
    product    VARCHAR(63) NOT NULL,
    env        VARCHAR(32) NOT NULL,
    session_id BINARY(16),
    due        BIGINT NOT NULL,
    attempts   INT UNSIGNED NOT NULL,
    event      MEDIUMTEXT NOT NULL,
    KEY outbox_by_session (session_id, id)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS products (
    tag            VARCHAR(63) NOT NULL PRIMARY KEY,
    name           MEDIUMTEXT NOT NULL,
    longest_access BIGINT UNSIGNED NOT NULL COMMENT 'seconds: of any definition that it ever had'
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS environments (
    product VARCHAR(63) NOT NULL,
    slug    VARCHAR(32) NOT NULL,
    name    MEDIUMTEXT NOT NULL,
    active  TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (product, slug)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A deleted definition has no present version; its versions stay readable for the sessions that started with them.
CREATE TABLE IF NOT EXISTS definitions (
    product         VARCHAR(63) NOT NULL,
    tag             VARCHAR(63) NOT NULL,
    present_version INT UNSIGNED,
    PRIMARY KEY (product, tag)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS definition_versions (
    product    VARCHAR(63) NOT NULL,
    tag        VARCHAR(63) NOT NULL,
    version    INT UNSIGNED NOT NULL,
    definition MEDIUMTEXT NOT NULL,
    PRIMARY KEY (product, tag, version)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS signing_keys (
    kid        VARCHAR(64) NOT NULL PRIMARY KEY,
    seq        BIGINT UNSIGNED NOT NULL COMMENT 'the version of the configuration that brought it',
    product    VARCHAR(63) NOT NULL,
    env        VARCHAR(32) NOT NULL,
    algorithm  VARCHAR(16) NOT NULL,
    public_jwk MEDIUMTEXT NOT NULL,
    wrapped    MEDIUMBLOB NOT NULL,
    created_at BIGINT NOT NULL,
    signs_from BIGINT NOT NULL,
    KEY signing_keys_by_scope (product, env, seq)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS secret_checks (
    kid         TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    check_value BINARY(16) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS api_keys (
    id          VARCHAR(255) NOT NULL PRIMARY KEY,
    seq         BIGINT UNSIGNED NOT NULL COMMENT 'the version of the configuration that brought it',
    name        MEDIUMTEXT NOT NULL,
    hash        BINARY(32) NOT NULL,
    permissions MEDIUMTEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    revoked_at  BIGINT,
    UNIQUE KEY api_keys_by_hash (hash)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS audit (
    id         BINARY(16) NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      MEDIUMTEXT NOT NULL,
    action     MEDIUMTEXT NOT NULL,
    target     MEDIUMTEXT NOT NULL,
    ip         MEDIUMTEXT,
    request_id MEDIUMTEXT
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row: grows with every change to products, environments, definitions, signing keys or API keys.
CREATE TABLE IF NOT EXISTS config (
    id      TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    version BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

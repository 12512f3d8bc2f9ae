-- Format 1. Times are milliseconds since 1970, secrets are stored as SHA-256.

CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    hash         BLOB    NOT NULL UNIQUE,
    created_ms   INTEGER NOT NULL,
    last_used_ms INTEGER
) STRICT;

CREATE TABLE sessions (
    hash       BLOB    PRIMARY KEY,
    token      INTEGER NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolment_keys (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE,
    uses_left  INTEGER,
    expires_ms INTEGER,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
    id              TEXT    PRIMARY KEY,
    name            TEXT    NOT NULL,
    platform        TEXT,
    accepted_ms     INTEGER,
    claim_hash      BLOB,
    token_hash      BLOB,
    next_token_hash BLOB,
    wants_config    INTEGER NOT NULL DEFAULT 1,
    created_ms      INTEGER NOT NULL,
    last_seen_ms    INTEGER,
    last_address    TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE attributes (
    device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (device, key)
) STRICT, WITHOUT ROWID;

-- What can be assigned: a release on one platform (`target` is its TUF target), or an uploaded
-- artifact (`target` is empty, `platform` too).
CREATE TABLE modules (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    platform   TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    part       TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (name, version, platform, target)
) STRICT;

CREATE TABLE files (
    module     INTEGER NOT NULL REFERENCES modules (id) ON DELETE CASCADE,
    filename   TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha1       TEXT    NOT NULL,
    md5        TEXT    NOT NULL,
    sha256     TEXT    NOT NULL,
    PRIMARY KEY (module, filename)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    release     TEXT    NOT NULL,
    is_artifact INTEGER NOT NULL,
    plan        TEXT    NOT NULL,
    progress    TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    created_by  TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    ended_ms    INTEGER
) STRICT;
CREATE INDEX rollouts_open ON rollouts (state) WHERE state IN ('running', 'paused');

CREATE TABLE rollout_devices (
    rollout  INTEGER NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    grp      INTEGER NOT NULL,
    device   TEXT    NOT NULL,
    module   INTEGER NOT NULL REFERENCES modules (id),
    standing TEXT    NOT NULL,
    PRIMARY KEY (rollout, position),
    UNIQUE (rollout, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX rollout_devices_device ON rollout_devices (device) WHERE standing IN ('waiting', 'active');

-- One assignment; the id is the one DDI shows.
CREATE TABLE actions (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    device         TEXT    NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    rollout        INTEGER NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    module         INTEGER NOT NULL REFERENCES modules (id),
    status         TEXT    NOT NULL,
    message        TEXT,
    entries        INTEGER NOT NULL DEFAULT 0,
    closing_digest BLOB,
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX actions_device ON actions (device, id);
CREATE INDEX actions_rollout ON actions (rollout, device);

CREATE TABLE action_messages (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    action  INTEGER NOT NULL REFERENCES actions (id) ON DELETE CASCADE,
    at_ms   INTEGER NOT NULL,
    status  TEXT    NOT NULL,
    details TEXT    NOT NULL
) STRICT;
CREATE INDEX action_messages_action ON action_messages (action, id);

-- `device` is empty for what no device did.
CREATE TABLE traffic (
    device         TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    requests       INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL,
    sent_bytes     INTEGER NOT NULL,
    PRIMARY KEY (device, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    detail  TEXT    NOT NULL
) STRICT;

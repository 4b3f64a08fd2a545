-- TEXT and BIGINT only, and no syntax of one database alone: the same text runs on SQLite and PostgreSQL.
-- Times are milliseconds since the Unix epoch; truth is 0 or 1; structures are JSON.

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    -- Counts the node's saves: a save that read an older row is refused. Its steps number the audit rows and events below.
    version BIGINT NOT NULL,
    org_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    roles TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    websocket_connected BIGINT NOT NULL,
    last_seen_at BIGINT,
    connection_established_at BIGINT,
    ip_address TEXT,
    daemon_version TEXT,
    instance_id TEXT,
    boot_id TEXT,
    system_info TEXT,
    installation TEXT
);
CREATE INDEX nodes_of_organisation ON nodes (org_id, created_at, id);
CREATE INDEX nodes_by_status ON nodes (status);

-- The audit trail: one row for every move that a node ever made.
CREATE TABLE transitions (
    node_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    from_status TEXT,
    to_status TEXT NOT NULL,
    cause TEXT NOT NULL,
    actor TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (node_id, seq)
);

-- What was issued. The token itself is never kept: its SHA-256 tells whether a text was it.
CREATE TABLE tokens (
    jti TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    release_version TEXT NOT NULL,
    release_checksums TEXT NOT NULL
);
CREATE INDEX tokens_of_node ON tokens (node_id, issued_at);

-- Events that NOTI has not acknowledged yet, in order per node.
CREATE TABLE outbox (
    id TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_attempt_at BIGINT NOT NULL,
    last_error TEXT,
    UNIQUE (node_id, seq)
);

-- Events that the built-in NOTI has received, in the order in which it did.
CREATE TABLE inbox (
    id TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL UNIQUE,
    org_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX inbox_of_organisation ON inbox (org_id, seq);

-- What AIWM's dialect keeps of a node beside the node. A setup token and a secret are kept as their SHA-256 alone.
CREATE TABLE aiwm_nodes (
    node_id TEXT NOT NULL PRIMARY KEY,
    -- An editor registered it, and no owner has approved it yet.
    awaits_approval BIGINT NOT NULL DEFAULT 0,
    -- Of the one setup token that opens, until it is used.
    setup_sha256 TEXT,
    secret_sha256 TEXT
);

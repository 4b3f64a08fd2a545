-- What people did: one row for every change that somebody asked for, written in the transaction of the change.
CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    org_id TEXT NOT NULL,
    actor TEXT NOT NULL,
    roles TEXT NOT NULL,
    address TEXT,
    action TEXT NOT NULL,
    node_id TEXT,
    target TEXT,
    outcome TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX audit_of_organisation ON audit (org_id, seq);

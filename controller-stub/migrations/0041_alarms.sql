-- Alarms, raised and resolved. `node_id` is empty where an organisation or the controller is concerned; `org_id` is empty for the
-- controller. `told` is 1 once an event has said that it was raised.
CREATE TABLE alarms (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    part TEXT NOT NULL,
    level TEXT NOT NULL,
    reason TEXT NOT NULL,
    action TEXT NOT NULL,
    raised_at BIGINT NOT NULL,
    told BIGINT NOT NULL,
    acknowledged_at BIGINT,
    acknowledged_by TEXT,
    resolved_at BIGINT,
    resolution TEXT
);
CREATE INDEX alarms_of_organisation ON alarms (org_id, raised_at, id);
CREATE INDEX alarms_by_end ON alarms (resolved_at, node_id);
CREATE INDEX alarms_of_node ON alarms (node_id);

-- While one holds, alarms of its node, or of nodes with its label, are not told as events.
CREATE TABLE silences (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL,
    node_id TEXT,
    label TEXT,
    until BIGINT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
CREATE INDEX silences_of_organisation ON silences (org_id, until);

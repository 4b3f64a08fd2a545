-- Nodes by a number, so that a window's key is one small integer.
CREATE TABLE telemetry_nodes (
    number INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL UNIQUE
);

-- Five minutes of a node each. The key is the window's number since 1970 times 2^32 and the node's number: windows are added at
-- the end, and old ones go from the beginning.
CREATE TABLE telemetry (
    key INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);

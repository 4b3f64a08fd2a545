-- The health of a node's GPUs that an event told last, where it is not `ok`.
CREATE TABLE told_healths (
    node_id TEXT NOT NULL PRIMARY KEY,
    health TEXT NOT NULL
);

-- When a node was last heard of since its row was saved. A row has a page and more, and would be written anew each time.
CREATE TABLE sightings (
    node_id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
) WITHOUT ROWID;

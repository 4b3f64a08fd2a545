-- Which controller holds a node's worker: the number of one that serves together with others, or 0.
ALTER TABLE nodes ADD COLUMN held_by BIGINT NOT NULL DEFAULT 0;
-- Controllers that serve the database together. `beats` grows while one lives; `leads` is 1 for the one that does what is done once.
CREATE TABLE controllers (
    number BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    address TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    beaten_at BIGINT NOT NULL,
    beats BIGINT NOT NULL,
    leads BIGINT NOT NULL
);
-- What one of them has to be told of a node: `moved` when another has taken it, `told` when its worker is to be told something.
CREATE TABLE signals (
    controller BIGINT NOT NULL,
    node_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (controller, node_id, kind)
);

-- What a node's worker says of updates, whether it updates itself, and the version that the controller keeps it at.
ALTER TABLE nodes ADD COLUMN update_report TEXT;
ALTER TABLE nodes ADD COLUMN updates_itself BIGINT NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN pin TEXT;
-- Rollouts, and their nodes: how each stands. A rollout's tally is the count of its nodes by wave and stage.
CREATE TABLE rollouts (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL,
    version TEXT NOT NULL,
    node_group TEXT,
    only_node TEXT,
    settings TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    started_at BIGINT,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    canaries BIGINT NOT NULL,
    in_flight BIGINT NOT NULL,
    tally TEXT NOT NULL,
    pardoned TEXT NOT NULL,
    progressed_at BIGINT NOT NULL,
    -- Counts the saves: a save that read an older row is refused.
    revision BIGINT NOT NULL,
    -- When it has to be looked at although no node says anything.
    due BIGINT
);
CREATE INDEX rollouts_of_organisation ON rollouts (org_id, created_at);
CREATE INDEX rollouts_due ON rollouts (due) WHERE due IS NOT NULL;
CREATE TABLE rollout_nodes (
    rollout_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    wave BIGINT NOT NULL,
    place BIGINT NOT NULL,
    stage TEXT NOT NULL,
    note TEXT NOT NULL,
    due BIGINT,
    -- Whether anything that the node says can change it.
    open BIGINT NOT NULL,
    -- Counts the saves of the node's row, and how many of them the rollout has taken note of.
    news BIGINT NOT NULL DEFAULT 0,
    seen BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (rollout_id, node_id)
);
-- A node stands in one open rollout.
CREATE UNIQUE INDEX rollout_nodes_open ON rollout_nodes (node_id) WHERE open = 1;
CREATE INDEX rollout_nodes_of_node ON rollout_nodes (node_id);
CREATE INDEX rollout_nodes_by_stage ON rollout_nodes (rollout_id, stage, wave, place);
CREATE INDEX rollout_nodes_news ON rollout_nodes (rollout_id) WHERE news > seen;
CREATE INDEX rollout_nodes_due ON rollout_nodes (due) WHERE due IS NOT NULL;
-- What holds for the nodes with the label group=NAME.
CREATE TABLE node_groups (
    org_id TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (org_id, name)
);

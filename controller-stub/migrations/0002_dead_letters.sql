-- An event's life is counted from its first attempt.
ALTER TABLE outbox ADD COLUMN first_attempt_at BIGINT;

-- Events that NOTI refused for good, or did not take for a day: until somebody replays them.
CREATE TABLE dead_letters (
    id TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    died_at BIGINT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX dead_letters_of_organisation ON dead_letters (org_id, died_at, id);

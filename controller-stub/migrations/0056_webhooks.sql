-- Webhooks of organisations. `kinds` is empty for all types of event, or `,` with each and a `,` behind it.
CREATE TABLE webhooks (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL,
    url TEXT NOT NULL,
    description TEXT NOT NULL,
    kinds TEXT NOT NULL,
    secret TEXT NOT NULL,
    previous_secret TEXT,
    previous_until BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX webhooks_of_organisation ON webhooks (org_id, created_at);

-- What each webhook is owed. With `died_at` it was given up.
CREATE TABLE webhook_events (
    webhook_id TEXT NOT NULL,
    id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    tried_millis BIGINT NOT NULL,
    last_attempt_at BIGINT,
    next_attempt_at BIGINT NOT NULL,
    died_at BIGINT,
    reason TEXT,
    PRIMARY KEY (webhook_id, id)
);
CREATE INDEX webhook_events_in_order ON webhook_events (node_id, webhook_id, seq);
CREATE INDEX webhook_events_waiting ON webhook_events (webhook_id, node_id) WHERE died_at IS NULL;
CREATE INDEX webhook_events_owed ON webhook_events (webhook_id, org_id, died_at);
CREATE INDEX webhook_events_by_age ON webhook_events (created_at);

-- What came of each attempt.
CREATE TABLE webhook_attempts (
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    at BIGINT NOT NULL,
    millis BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    answer TEXT NOT NULL
);
CREATE INDEX webhook_attempts_of_webhook ON webhook_attempts (webhook_id, id);
CREATE INDEX webhook_attempts_by_time ON webhook_attempts (at);

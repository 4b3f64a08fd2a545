-- Answers to requests with an Idempotency-Key, for a day. The id is a SHA-256 of the organisation, the path and the key; the body is kept without
-- the signatures of tokens. Without a status, the request is being answered, or its controller ended meanwhile.
CREATE TABLE idempotency (
    id TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    at BIGINT NOT NULL,
    status BIGINT,
    body TEXT
);
CREATE INDEX idempotency_by_time ON idempotency (at);

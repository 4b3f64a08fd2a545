-- How long an event has been tried, added up attempt by attempt: the difference of two times of day is no such time when the clock was set.
ALTER TABLE outbox ADD COLUMN tried_millis BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN last_attempt_at BIGINT;

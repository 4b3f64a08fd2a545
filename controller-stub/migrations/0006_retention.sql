-- Where the oldest rows are found that may go.
CREATE INDEX transitions_by_time ON transitions (at);
CREATE INDEX tokens_by_end ON tokens (expires_at);
CREATE INDEX dead_letters_by_time ON dead_letters (died_at);

-- Tokens of a node that were issued until then, by whomever, open nothing.
ALTER TABLE nodes ADD COLUMN tokens_not_before BIGINT NOT NULL DEFAULT 0;
CREATE INDEX nodes_by_token_revocation ON nodes (tokens_not_before);
CREATE INDEX nodes_by_name ON nodes (org_id, name, id);

-- Tokens of a node that were issued until then, by whomever, open nothing. Every withdrawal moves it on.
ALTER TABLE nodes ADD COLUMN tokens_not_before BIGINT NOT NULL DEFAULT 0;
-- What it was when the worker that is connected showed its token.
ALTER TABLE nodes ADD COLUMN admitted_not_before BIGINT NOT NULL DEFAULT 0;
-- Whose tokens were withdrawn while their worker was connected: nobody, nearly always.
CREATE INDEX nodes_connected_without_token ON nodes (id)
    WHERE websocket_connected = 1 AND tokens_not_before <> admitted_not_before;
CREATE INDEX nodes_by_name ON nodes (org_id, name, id);

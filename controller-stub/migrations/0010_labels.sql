-- A node's labels: a JSON object of texts, its keys in order.
ALTER TABLE nodes ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
-- The name in a form whose order is the natural one: gpu-2 before gpu-10. Filled in at the next start for nodes that were there before.
ALTER TABLE nodes ADD COLUMN name_key TEXT NOT NULL DEFAULT '';
CREATE INDEX nodes_by_name_key ON nodes (org_id, name_key, id);
-- Who minted a token: user:<id>, controller, or command line. Empty for those from before.
ALTER TABLE tokens ADD COLUMN minted_by TEXT;

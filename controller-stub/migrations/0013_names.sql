-- Nodes from before names had a key: found without reading the others.
CREATE INDEX nodes_without_name_key ON nodes (id) WHERE name_key = '';

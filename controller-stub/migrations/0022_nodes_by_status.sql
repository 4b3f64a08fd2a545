-- Who has which status is asked for every minute, and of the index alone.
DROP INDEX nodes_by_status;
CREATE INDEX nodes_by_status ON nodes (status, org_id, id);

-- Where a list of events begins that is asked for since a time.
CREATE INDEX inbox_by_time ON inbox (org_id, happened_at, seq);

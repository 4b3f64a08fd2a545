-- A token that was offered to a worker in place of the one that it uses: which one that is, and what became of the offer.
-- Neither taken nor revoked means open: its worker may still come back with it.
ALTER TABLE tokens ADD COLUMN replaces TEXT;
ALTER TABLE tokens ADD COLUMN taken_at BIGINT;
ALTER TABLE tokens ADD COLUMN rejection TEXT;
CREATE INDEX token_offers ON tokens (replaces);

-- The user's token that ends last, of those that were made to last for a week or longer. Told of before its end; it is not kept here.
CREATE TABLE user_tokens (
    org_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (org_id, user_id)
);

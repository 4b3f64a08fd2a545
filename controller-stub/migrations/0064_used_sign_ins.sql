-- Sign-ins at the identity provider that have begun a session: none begins a second. The id is the SHA-256 of the sign-in's state.
CREATE TABLE used_sign_ins (
    id TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

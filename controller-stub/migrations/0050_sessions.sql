-- Who is signed in to the pages, and links that sign in once. The id is a SHA-256: of a session's cookie, of a link's secret.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    roles TEXT NOT NULL,
    began_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT
);
CREATE INDEX sessions_of_organisation ON sessions (org_id, began_at);
CREATE TABLE login_links (
    id TEXT NOT NULL PRIMARY KEY,
    org_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    roles TEXT NOT NULL,
    session_secs BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

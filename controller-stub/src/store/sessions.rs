//! Who is signed in to the pages, and links that sign in once. Neither a cookie nor a link's secret is kept:
//! a SHA-256 tells whether a text was one.

use aio_protocol::{ids::OwnerId, time::Timestamp};
use sqlx::{AnyConnection, Row, any::AnyRow};

use super::{
    database::Store,
    error::StoreError,
    rows::{corrupt, from_json, json, signed, time},
    writer::Write,
};

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// The SHA-256 of its cookie.
    pub id: String,
    pub org: OwnerId,
    pub user: OwnerId,
    pub roles: Vec<String>,
    pub began_at: Timestamp,
    pub expires_at: Timestamp,
    /// From where they signed in.
    pub address: Option<String>,
}

/// A link that signs in once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginLink {
    /// The SHA-256 of its secret.
    pub id: String,
    pub org: OwnerId,
    pub user: OwnerId,
    pub roles: Vec<String>,
    /// How long the session lasts that it begins.
    pub session_secs: u64,
    pub expires_at: Timestamp,
}

/// What begins one session alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Once {
    /// A link, by its id.
    Link(String),
    /// A sign-in at the identity provider, by the SHA-256 of its state. It is kept until it would be too old.
    SignIn { id: String, expires_at: Timestamp },
}

/// Which sessions to end.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// This one.
    One(String),
    /// All of this user.
    User(OwnerId),
    /// All of the organisation.
    All,
}

impl Store {
    pub(crate) async fn session(&self, id: &str) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query("SELECT * FROM sessions WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        row.as_ref().map(read_session).transpose()
    }

    /// An organisation's sessions, newest first.
    pub(crate) async fn sessions(&self, org: &OwnerId, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        let _share = self.shares.take(org).await;
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE org_id = $1 AND expires_at > $2 ORDER BY began_at DESC, id LIMIT 200",
        )
        .bind(org.as_str())
        .bind(now.as_millis())
        .fetch_all(&mut *self.lists.take().await?)
        .await?;
        rows.iter().map(read_session).collect()
    }

    /// Keeps a link, until it is used or has ended.
    pub(crate) async fn add_login_link(&self, link: LoginLink) -> Result<(), StoreError> {
        self.writer.write(AddLink(link)).await
    }

    /// The link, unless it was used or has ended.
    pub(crate) async fn login_link(&self, id: &str, now: Timestamp) -> Result<Option<LoginLink>, StoreError> {
        let row = sqlx::query("SELECT * FROM login_links WHERE id = $1 AND expires_at > $2")
            .bind(id)
            .bind(now.as_millis())
            .fetch_optional(&mut *self.pool.take().await?)
            .await?;
        row.as_ref().map(read_link).transpose()
    }

    /// Begins a session. Uses up what it begins by; says whether nobody else had.
    pub(crate) async fn begin_session(&self, session: Session, by: Option<Once>) -> Result<bool, StoreError> {
        let roles = json("roles", &session.roles)?;
        self.writer.write(Begin { roles, session, by }).await
    }

    /// Ends sessions of an organisation, and says how many.
    pub(crate) async fn end_sessions(&self, org: &OwnerId, which: Ended) -> Result<u64, StoreError> {
        self.writer.write(End { org: org.clone(), which }).await
    }
}

struct AddLink(LoginLink);

impl Write for AddLink {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let Self(link) = self;
        sqlx::query(
            "INSERT INTO login_links (id, org_id, user_id, roles, session_secs, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&link.id)
        .bind(link.org.as_str())
        .bind(link.user.as_str())
        .bind(json("roles", &link.roles)?)
        .bind(signed(link.session_secs))
        .bind(link.expires_at.as_millis())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Begins a session, and drops what has ended.
struct Begin {
    session: Session,
    roles: String,
    by: Option<Once>,
}

impl Write for Begin {
    type Answer = bool;

    async fn run(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let Self { session, roles, by } = self;
        let used = match by {
            None => None,
            Some(Once::Link(id)) => Some(sqlx::query("DELETE FROM login_links WHERE id = $1").bind(id)),
            Some(Once::SignIn { id, expires_at }) => Some(
                sqlx::query(
                    "INSERT INTO used_sign_ins (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                )
                .bind(id)
                .bind(expires_at.as_millis()),
            ),
        };
        if let Some(used) = used
            && used.execute(&mut *connection).await?.rows_affected() == 0
        {
            return Ok(false);
        }
        for statement in [
            "DELETE FROM sessions WHERE expires_at < $1",
            "DELETE FROM login_links WHERE expires_at < $1",
            "DELETE FROM used_sign_ins WHERE expires_at < $1",
        ] {
            let now = session.began_at.as_millis();
            sqlx::query(statement).bind(now).execute(&mut *connection).await?;
        }
        sqlx::query(
            "INSERT INTO sessions (id, org_id, user_id, roles, began_at, expires_at, address) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&session.id)
        .bind(session.org.as_str())
        .bind(session.user.as_str())
        .bind(roles)
        .bind(session.began_at.as_millis())
        .bind(session.expires_at.as_millis())
        .bind(session.address.as_deref())
        .execute(connection)
        .await?;
        Ok(true)
    }

    fn changed(begun: &bool) -> bool {
        *begun
    }
}

struct End {
    org: OwnerId,
    which: Ended,
}

impl Write for End {
    type Answer = u64;

    fn is_urgent(&self) -> bool {
        true
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        let (one, user) = match &self.which {
            Ended::One(id) => (id.as_str(), ""),
            Ended::User(user) => ("", user.as_str()),
            Ended::All => ("", ""),
        };
        let ended = sqlx::query(
            "DELETE FROM sessions WHERE org_id = $1 AND ($2 = '' OR id = $2) AND ($3 = '' OR user_id = $3)",
        )
        .bind(self.org.as_str())
        .bind(one)
        .bind(user)
        .execute(&mut *connection)
        .await?
        .rows_affected();
        // Whoever is to be out must not come back by a link that was printed before.
        if !matches!(self.which, Ended::One(_)) {
            sqlx::query("DELETE FROM login_links WHERE org_id = $1 AND ($2 = '' OR user_id = $2)")
                .bind(self.org.as_str())
                .bind(user)
                .execute(connection)
                .await?;
        }
        Ok(ended)
    }
}

fn read_session(row: &AnyRow) -> Result<Session, StoreError> {
    let text = |column| row.try_get::<String, _>(column);
    Ok(Session {
        id: text("id")?,
        org: text("org_id")?.parse().map_err(corrupt("org_id"))?,
        user: text("user_id")?.parse().map_err(corrupt("user_id"))?,
        roles: from_json("roles", &text("roles")?)?,
        began_at: time(row, "began_at")?,
        expires_at: time(row, "expires_at")?,
        address: row.try_get("address")?,
    })
}

fn read_link(row: &AnyRow) -> Result<LoginLink, StoreError> {
    let text = |column| row.try_get::<String, _>(column);
    Ok(LoginLink {
        id: text("id")?,
        org: text("org_id")?.parse().map_err(corrupt("org_id"))?,
        user: text("user_id")?.parse().map_err(corrupt("user_id"))?,
        roles: from_json("roles", &text("roles")?)?,
        session_secs: u64::try_from(row.try_get::<i64, _>("session_secs")?).unwrap_or(0),
        expires_at: time(row, "expires_at")?,
    })
}

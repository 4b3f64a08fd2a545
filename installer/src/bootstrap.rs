//! From a setup token of AIWM to the credentials of a node. AIWM gives the secret once, and a secret that
//! is lost is a dead end. So: what was got is durable before anything else happens, outside of any
//! installation that may be undone; a rerun finds it and asks for none; and before AIWM is asked, it
//! is proved that the place can be written. Nothing interrupts the call but the end of the process.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aio_host::{
    config::ConfigFile,
    files,
    layout::Layout,
    token::{self, NodeToken, TokenError},
};
use aio_protocol::{
    aiwm::{credentials::Credentials, rest::Hidden, setup::SetupClaims},
    error_code::ErrorCode,
    ids::NodeId,
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    controller::{
        aiwm::AiwmService,
        route::{Route, RouteOptions},
    },
    failure::Failure,
    machine::lock::Lock,
    shipped,
    transaction::checkpoint::{Checkpoint, Point},
    update,
};

/// The word of this flow at a [`Checkpoint`].
pub const BOOTSTRAP: &str = "bootstrap";

/// Of the folder with kept secrets.
const FOLDER_MODE: u32 = 0o700;

/// How AIWM is reached, and whether it may be asked.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// Authorities (PEM) to trust beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy.
    pub proxy: Option<String>,
    /// Whether plain `http` to other machines is allowed.
    pub insecure_http: bool,
    /// Ask nobody: without a secret that is here, the credentials have none.
    pub dry_run: bool,
}

impl Way {
    fn options(&self) -> RouteOptions {
        RouteOptions {
            endpoint: None,
            ca_file: self.ca_file.clone(),
            proxy: self.proxy.clone(),
            insecure_http: self.insecure_http,
            stall_timeout: None,
        }
    }
}

/// Whether `text` is a setup token.
pub fn is_setup_token(text: &SecretString) -> bool {
    SetupClaims::are_in(unwrapped(text).expose_secret())
}

/// The node that a setup token sets up.
pub fn setup_node(text: &SecretString) -> Result<NodeId, Failure> {
    let claims = SetupClaims::read_unverified(unwrapped(text).expose_secret());
    claims.map(|claims| claims.node_id).map_err(|error| Failure::from(TokenError::from(error)))
}

fn unwrapped(text: &SecretString) -> SecretString {
    aio_protocol::claims::pasted::unwrapped(text.expose_secret()).into()
}

/// The credentials of the node that `setup_token` sets up: with the secret that is kept here, or with
/// the one that AIWM gives for it.
pub async fn bootstrap(
    layout: &Layout,
    setup_token: &SecretString,
    way: &Way,
    checkpoint: &dyn Checkpoint,
) -> Result<NodeToken, Failure> {
    let setup_token = unwrapped(setup_token);
    let claims = SetupClaims::read_unverified(setup_token.expose_secret())
        .map_err(|error| Failure::from(TokenError::from(error)))?;
    let with = |secret: Hidden| {
        let made = Credentials::bootstrapped(&claims, secret);
        made.map_err(|error| Failure::new(ErrorCode::TokenInvalid, error.to_string()))
    };
    let nobody = NodeToken::of_aiwm(with(Hidden::default())?);
    let route = Route::to_controller(nobody.claims(), &way.options(), layout)?;
    if way.dry_run {
        return match kept(layout, &claims.node_id)? {
            Found::Secret(secret) => with(secret).map(NodeToken::of_aiwm),
            _ => Ok(nobody),
        };
    }
    let work = async {
        let begun = match kept(layout, &claims.node_id)? {
            Found::Secret(secret) => return with(secret).map(NodeToken::of_aiwm),
            Found::Beginning => true,
            Found::Nothing => false,
        };
        refuse_expired(&claims)?;
        let service = service(&route, way)?;
        keep(layout, nobody.aiwm())?;
        checkpoint.reached(Point::Intended(BOOTSTRAP)).await?;
        let answer = match service.bootstrap(&setup_token).await {
            Ok(answer) => answer,
            Err(failure) => return Err(refused(layout, &claims.node_id, failure, begun)),
        };
        let credentials = with(answer.secret)?;
        keep(layout, Some(&credentials))?;
        checkpoint.reached(Point::Done(BOOTSTRAP)).await?;
        if answer.node_id != claims.node_id {
            let (given, wanted) = (&answer.node_id, &claims.node_id);
            let message =
                format!("AIWM gave the secret of node {given} for the setup token of node {wanted}");
            return Err(Failure::new(ErrorCode::TokenForeign, message));
        }
        Ok(NodeToken::of_aiwm(credentials))
    };
    alone(layout, work).await
}

/// Does `work` while no installation or update is under way.
async fn alone<T>(layout: &Layout, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let dir = layout.journal_dir();
    let lock = Lock::take(&dir).map_err(|failure| update::explain(layout, failure))?;
    let outcome = work.await;
    // The folder stays while something is in it. Failing to remove it is no failure.
    if let Err(failure) = lock.release(&dir) {
        tracing::warn!(message = %failure.message, "could not tidy up");
    }
    outcome
}

fn service(route: &Route, way: &Way) -> Result<AiwmService, Failure> {
    let (base, proxy) = (route.base_text(), route.proxy.proxy.as_ref());
    AiwmService::at(&base, &route.trust, proxy, way.insecure_http)
}

fn refuse_expired(claims: &SetupClaims) -> Result<(), Failure> {
    let now = SystemTime::now().into();
    if !claims.expired(now) {
        return Ok(());
    }
    let (node, end) = (&claims.node_id, claims.expires_at());
    let message = format!("the setup token of node {node} ended at {end}; it is {now} here");
    Err(Failure::new(ErrorCode::TokenExpired, message))
}

/// AIWM gave nothing. Unless it may have, nothing of the attempt stays; and a refusal says it where an
/// earlier attempt may have been given what is lost.
fn refused(layout: &Layout, node: &NodeId, failure: Failure, begun: bool) -> Failure {
    use ErrorCode::{ControllerError, ControllerInvalid, ControllerUnreachable, SetupTokenRefused};
    let unknown = matches!(failure.code, ControllerError | ControllerInvalid | ControllerUnreachable);
    if !begun && !unknown {
        let removed = files::remove_file(&layout.secret_of(node))
            .and_then(|_| files::remove_dir_if_empty(&layout.secrets()));
        if let Err(error) = removed {
            tracing::warn!(%error, "what was begun could not be removed");
        }
    }
    if !begun || failure.code != SetupTokenRefused {
        return failure;
    }
    let message = format!(
        "{}; an earlier run was cut off while it asked, and the secret that it may have been given is lost",
        failure.message
    );
    Failure { message, ..failure }
}

/// What is here of a node.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// AIWM may have been asked, and nothing came of it.
    Beginning,
    Secret(Hidden),
}

/// Looks where secrets are kept, and at the token that is installed.
fn kept(layout: &Layout, node: &NodeId) -> Result<Found, Failure> {
    let path = layout.secret_of(node);
    let of_node = |text: &str| Credentials::read(text).ok().filter(|found| found.node_id == *node);
    let record = match fs::read_to_string(&path) {
        Ok(text) => Some(of_node(&text).ok_or_else(|| {
            let message = format!("{} holds no credentials of node {node}", path.display());
            Failure::new(ErrorCode::FileFailed, message).with("path", path.display().to_string())
        })?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::io("read", &path, &error)),
    };
    let installed = token::read_plain_file(&layout.token()).and_then(|text| of_node(text.expose_secret()));
    let secret = |found: &Credentials| Some(found.secret.clone()).filter(|secret| !secret.0.is_empty());
    // What is installed may be a secret that an operator has set since.
    let known = installed.iter().chain(&record).find_map(secret);
    Ok(match (known, record) {
        (Some(secret), _) => Found::Secret(secret),
        (None, Some(_)) => Found::Beginning,
        (None, None) => Found::Nothing,
    })
}

/// Keeps credentials, durably.
fn keep(layout: &Layout, credentials: Option<&Credentials>) -> Result<(), Failure> {
    let Some(credentials) = credentials else { return Ok(()) };
    let path = layout.secret_of(&credentials.node_id);
    if let Some(folder) = path.parent() {
        files::create_dir(folder, FOLDER_MODE)?;
    }
    Ok(files::replace_file(&path, padded(credentials).as_bytes(), shipped::TOKEN_MODE)?)
}

/// The document, as long with a secret as without one: where the beginning could be written, the end
/// finds room.
fn padded(credentials: &Credentials) -> String {
    format!("{:<4095}\n", credentials.write().trim_end())
}

/// Forgets all secrets that are kept here.
pub(crate) fn forget(layout: &Layout) -> Result<(), Failure> {
    let dir = layout.secrets();
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io("remove", &dir, &error)),
        _ => Ok(()),
    }
}

/// The files with secrets that are kept here.
pub(crate) fn list(layout: &Layout) -> Vec<PathBuf> {
    let entries = fs::read_dir(layout.secrets()).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| Path::is_file(path)).collect();
    paths.sort();
    paths
}

/// Makes `secret` the installed node's, durably, after AIWM has taken it. Where AIWM cannot be asked
/// now, it is set all the same, and the failure says why.
pub async fn set_secret(
    layout: &Layout,
    secret: &SecretString,
    way: &Way,
) -> Result<(NodeId, Option<Failure>), Failure> {
    let work = async {
        let path = layout.token();
        let installed = token::read_plain_file(&path).ok_or_else(|| Failure::from(TokenError::Missing))?;
        let Some(present) = NodeToken::parse(&installed).ok().and_then(|token| token.aiwm().cloned()) else {
            let message = format!("{} holds no credentials of a node of AIWM", path.display());
            return Err(Failure::new(ErrorCode::TokenInvalid, message));
        };
        let secret = Hidden(unwrapped(secret).expose_secret().to_owned());
        if secret.0.is_empty() {
            return Err(Failure::new(ErrorCode::TokenMissing, "no secret was given"));
        }
        let changed = NodeToken::of_aiwm(Credentials { secret, ..present });
        let configured = ConfigFile::read(&layout.config()).unwrap_or_default();
        // As the daemon is told.
        let insecure_http = way.insecure_http || configured.insecure_http.unwrap_or(false);
        let way = &Way { insecure_http, ..way.clone() };
        let route = Route::to_controller(changed.claims(), &way.options(), layout)?;
        let service = service(&route, way)?;
        let node = changed.claims().sub.clone();
        let given = changed.aiwm().map(|credentials| credentials.secret.0.clone()).unwrap_or_default();
        let unasked = match service.login(&node, &given).await {
            Ok(_) => None,
            Err(failure) if failure.code.is_transient() => Some(failure),
            Err(failure) => return Err(failure),
        };
        keep(layout, changed.aiwm())?;
        files::replace_file(&path, changed.secret().expose_secret().as_bytes(), shipped::TOKEN_MODE)?;
        Ok((node, unasked))
    };
    alone(layout, work).await
}

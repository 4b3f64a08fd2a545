//! How a registered node gets onto a machine: its token, the script that carries it, and the plan that the
//! installer then asks for. A token pins the checksums that were published when it was made: a release file
//! that changes afterwards is refused by every machine that holds an older token.

use std::{collections::BTreeMap, io, time::Duration};

use aio_protocol::{
    claims::NodeClaims,
    ids::NodeId,
    installation::InstallationPlan,
    release::{Checksum, Platform, ReleaseVersion},
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    deployment::Deployment,
    install_script,
    node::Node,
    releases::{ReleaseFile, Releases},
    store::{IssuedToken, Store, StoreError},
    tokens::{self, Tokens, Unsigned},
};

/// A token lasts this long unless its request says otherwise: a year.
pub(crate) const DEFAULT_LIFE_SECS: u64 = 31_536_000;

/// What is handed to whoever puts the node onto its machine. The `Debug` form is missing on
/// purpose: it holds the token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enrolment {
    /// A secret.
    pub token: String,
    pub expires_at: Timestamp,
    /// `null` while the release's installer is not published.
    pub install_script: Option<String>,
    /// `systemd`.
    pub install_method: &'static str,
    pub daemon_version: ReleaseVersion,
    pub download_url: String,
    /// `null` while the release is not published.
    pub checksum: Option<Checksum>,
    pub documentation_url: String,
}

/// Why there is no token or no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolmentError {
    #[error("release {version} is not published for {platform}")]
    NotPublished { version: ReleaseVersion, platform: Platform },
    #[error("cannot read the releases folder")]
    Releases(#[source] io::Error),
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    #[error("cannot write the install script")]
    Script(#[from] askama::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes tokens and plans.
pub(crate) struct Enroller {
    pub store: Store,
    pub tokens: Tokens,
    pub releases: Releases,
    pub deployment: Deployment,
}

impl Enroller {
    /// Makes a token for `node` that lasts `lasts_secs` and installs `version`, for whoever
    /// `minter` is. A version that is asked for by name must be published; without one, a token for
    /// a worker that is already installed can be had at any time. It is kept nowhere yet.
    pub(crate) async fn draw_up(
        &self,
        node: &Node,
        version: Option<ReleaseVersion>,
        lasts_secs: u64,
        minter: &str,
        now: Timestamp,
    ) -> Result<(Enrolment, IssuedToken), EnrolmentError> {
        let asked_for = version.is_some();
        let version = version.unwrap_or_else(|| self.deployment.default_daemon_version.clone());
        let platform = Platform::LinuxAmd64;
        let mut checksums = BTreeMap::new();
        let mut installers = Vec::new();
        for platform in Platform::ALL {
            if let Some(daemon) = self.find(&version, ReleaseFile::Daemon(platform)).await? {
                checksums.insert(platform, daemon.checksum);
            }
            let file = ReleaseFile::Installer(platform);
            if let Some(installer) = self.find(&version, file).await? {
                let url = self.deployment.download_url(&version, file);
                installers.push((platform, url, installer.checksum));
            }
        }
        if asked_for && checksums.is_empty() {
            return Err(EnrolmentError::NotPublished { version, platform });
        }

        let claims = self.claims(&node.id, now, lasts_secs);
        let token = self.tokens.sign_node(&claims)?;
        let expires_at = claims.expires_at();
        let documentation_url = self.deployment.documentation_url();
        let install_script = if installers.is_empty() || checksums.is_empty() {
            tracing::warn!(node = %node.id, %version, "the release is not published, so the token comes without install script");
            None
        } else {
            Some(install_script::render(&install_script::Facts {
                node_name: &node.name,
                node_id: &node.id,
                version: &version,
                token: &token,
                expires: expires_at,
                documentation: &documentation_url,
                generated: now,
                installers: &installers,
                authority: self.deployment.download_authority(),
            })?)
        };
        let checksum = checksums.get(&platform).cloned();
        let issued = IssuedToken {
            jti: claims.jti,
            node: node.id.clone(),
            sha256: tokens::fingerprint(&token),
            issued_at: now,
            expires_at,
            version: version.clone(),
            checksums,
            minted_by: Some(minter.to_owned()),
        };
        let enrolment = Enrolment {
            token,
            expires_at,
            install_script,
            install_method: "systemd",
            download_url: self.deployment.download_url(&version, ReleaseFile::Daemon(platform)),
            daemon_version: version,
            checksum,
            documentation_url,
        };
        Ok((enrolment, issued))
    }

    /// A token for `node` that lasts `life` and promises what the one that it replaces did. It is
    /// kept nowhere yet.
    pub(crate) async fn renew(
        &self,
        node: &NodeId,
        replaces: &str,
        life: Duration,
        now: Timestamp,
    ) -> Result<(String, IssuedToken), EnrolmentError> {
        let (version, checksums) = match self.store.token(replaces).await? {
            Some(before) => (before.version, before.checksums),
            None => (self.deployment.default_daemon_version.clone(), BTreeMap::new()),
        };
        let claims = self.claims(node, now, life.as_secs());
        let token = self.tokens.sign_node(&claims)?;
        let issued = IssuedToken {
            expires_at: claims.expires_at(),
            jti: claims.jti,
            node: node.clone(),
            sha256: tokens::fingerprint(&token),
            issued_at: now,
            version,
            checksums,
            minted_by: Some("controller".to_owned()),
        };
        Ok((token, issued))
    }

    fn claims(&self, node: &NodeId, now: Timestamp, lasts_secs: u64) -> NodeClaims {
        tokens::node_claims(
            node,
            &self.deployment.api,
            &self.deployment.gateway(),
            self.deployment.release_public_key.as_deref(),
            self.deployment.authority.as_ref().map(|authority| &authority.fingerprint),
            now,
            lasts_secs,
        )
    }

    /// What to install on `node`, as the token `jti` promised; for a person who asks, as the node's
    /// newest token did.
    pub(crate) async fn plan(
        &self,
        node: &Node,
        jti: Option<&str>,
        platform: Platform,
    ) -> Result<InstallationPlan, EnrolmentError> {
        let issued = match jti {
            Some(jti) => self.store.token(jti).await?,
            None => self.store.newest_token(&node.id).await?,
        };
        let (version, mut pinned) = match issued {
            Some(issued) => (issued.version, issued.checksums),
            None => (self.deployment.default_daemon_version.clone(), BTreeMap::new()),
        };
        let file = ReleaseFile::Daemon(platform);
        let Some(published) = self.find(&version, file).await? else {
            return Err(EnrolmentError::NotPublished { version, platform });
        };
        Ok(InstallationPlan {
            node_id: node.id.clone(),
            node_name: node.name.clone(),
            status: node.status,
            download_url: self.deployment.download_url(&version, file),
            version,
            platform,
            checksum: pinned.remove(&platform).unwrap_or(published.checksum),
            // The size is what lies there now: a file that was altered is then reported as just
            // that, by its checksum.
            size: published.size,
            signature: published.signature,
            controller_endpoint: self.deployment.gateway(),
            documentation_url: self.deployment.documentation_url(),
        })
    }

    async fn find(
        &self,
        version: &ReleaseVersion,
        file: ReleaseFile,
    ) -> Result<Option<crate::config::PublishedFile>, EnrolmentError> {
        self.releases.find(version, file).await.map_err(EnrolmentError::Releases)
    }
}

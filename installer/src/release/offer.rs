//! What is to be installed, whence, and on whose word: the controller's plan, with the file from
//! its release server or from a bundle, or a bundle alone, or what a Debian package has put there
//! already. Decides nothing about the machine.

use std::path::PathBuf;

use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    installation::InstallationPlan,
    release::{Platform, ReleaseManifest, ReleaseVersion, build},
};

use crate::{
    controller::{calls::Controller, http},
    failure::Failure,
    release::{
        bundle::Bundle,
        verify::{Promise, same_file},
    },
};
use minisign_verify::PublicKey;
use reqwest::Url;

/// Where a release comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A release server.
    Server(Url),
    /// A bundle on this machine.
    Bundle(PathBuf),
}

/// What is to be installed.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) node_id: NodeId,
    /// As the controller calls it; nobody knows where no controller was asked.
    pub(crate) node_name: Option<String>,
    pub(crate) version: ReleaseVersion,
    /// Of a package there is nothing to fetch.
    file: Option<ReleaseFile>,
}

#[derive(Debug, Clone)]
struct ReleaseFile {
    manifest: ReleaseManifest,
    /// The URL that the controller gave.
    url: Option<String>,
    bundle: Option<Bundle>,
}

impl Offer {
    /// What `controller` plans for this node; from `bundle`, if there is one, which must hold that
    /// very release.
    pub(crate) async fn of_controller(
        controller: &Controller<'_>,
        platform: Platform,
        bundle: Option<Bundle>,
    ) -> Result<Self, Failure> {
        let plan = controller.plan(platform).await?;
        let InstallationPlan { node_id, node_name, download_url, .. } = &plan;
        let mut release = plan.release();
        if let Some(bundle) = &bundle {
            same_file(&bundle.release, &release, &bundle.path)?;
            release.signature = release.signature.or_else(|| bundle.release.signature.clone());
        }
        let (node_id, node_name, version) =
            (node_id.clone(), Some(node_name.clone()), release.version.clone());
        let file = ReleaseFile { manifest: release, url: Some(download_url.clone()), bundle };
        Ok(Self { node_id, node_name, version, file: Some(file) })
    }

    /// What is in `bundle`, for a machine that cannot ask its controller.
    pub(crate) fn of_bundle(node_id: NodeId, bundle: Bundle) -> Self {
        let manifest = bundle.release.clone();
        let version = manifest.version.clone();
        let file = ReleaseFile { manifest, url: None, bundle: Some(bundle) };
        Self { node_id, node_name: None, version, file: Some(file) }
    }

    /// What a package has brought, where the controller has no release to offer and none is needed:
    /// this program's version, as far as it knows.
    pub(crate) fn of_package(node_id: NodeId) -> Result<Self, Failure> {
        let version = format!("v{}", build::number()).parse();
        let version = version.map_err(|error| Failure::new(ErrorCode::Internal, format!("{error}")))?;
        Ok(Self { node_id, node_name: None, version, file: None })
    }

    /// Whether somebody has named the version; a package has its own.
    pub(crate) fn is_planned(&self) -> bool {
        self.file.is_some()
    }

    /// Where the release comes from, and what it must be. Where no controller vouches for it, a key
    /// must.
    pub(crate) fn promise(
        &self,
        key: Option<&PublicKey>,
        insecure_http: bool,
    ) -> Result<(Promise, Source), Failure> {
        let file = self.file.as_ref().ok_or_else(|| {
            let message = "the controller has no release to offer, and the package is gone";
            Failure::new(ErrorCode::ReleaseNotFound, message)
        })?;
        let (origin, source) = match (&file.bundle, &file.url) {
            (Some(bundle), _) => (bundle.path.display().to_string(), Source::Bundle(bundle.path.clone())),
            (None, url) => {
                let text = url.as_deref().unwrap_or_default();
                let url = http::parse(text, "the plan's download URL", insecure_http)?;
                (text.to_owned(), Source::Server(url))
            }
        };
        if file.url.is_none() && key.is_none() {
            let message = format!(
                "nobody vouches for what is in {origin}: neither the token nor --release-key names a key, and no controller is asked"
            );
            return Err(Failure::new(ErrorCode::SignatureMissing, message));
        }
        Ok((Promise::of(file.manifest.clone(), &origin, key)?, source))
    }
}

//! What is to be installed, whence, and on whose word: the controller's plan, with the file from
//! its release server or from a bundle, or a bundle alone, or the folder of a release that an operator
//! names, or the running program, or what a Debian package has put there already. Decides nothing
//! about the machine.

use std::{fs, path::PathBuf};

use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    installation::InstallationPlan,
    release::{
        Platform, ReleaseManifest, ReleaseVersion, build,
        folder::{self, FolderManifest},
    },
};

use crate::{
    controller::{calls::Controller, http},
    failure::Failure,
    release::{
        bundle::Bundle,
        tree::ReleaseTree,
        verify::{Promise, checksum, same_file},
    },
};
use minisign_verify::PublicKey;
use reqwest::Url;

/// A larger manifest of a folder is not read.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;

/// A larger signature is not read.
const MAX_SIGNATURE_BYTES: u64 = 8 * 1024;

/// Where a release comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A release server.
    Server(Url),
    /// A bundle on this machine.
    Bundle(PathBuf),
    /// A program on this machine.
    Program(PathBuf),
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
    /// A URL that was given.
    url: Option<String>,
    bundle: Option<Bundle>,
    /// The running program.
    program: Option<PathBuf>,
    /// Whether the controller says what the file is. Where nobody does, a key must.
    vouched: bool,
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
        let file = ReleaseFile {
            manifest: release,
            url: Some(download_url.clone()),
            bundle,
            program: None,
            vouched: true,
        };
        Ok(Self { node_id, node_name, version, file: Some(file) })
    }

    /// What is in `bundle`, for a machine that cannot ask its controller.
    pub(crate) fn of_bundle(node_id: NodeId, bundle: Bundle) -> Self {
        let manifest = bundle.release.clone();
        let version = manifest.version.clone();
        let file = ReleaseFile { manifest, url: None, bundle: Some(bundle), program: None, vouched: false };
        Self { node_id, node_name: None, version, file: Some(file) }
    }

    /// What lies in the folder of a release at `url`.
    pub(crate) async fn of_folder(
        node_id: NodeId,
        url: &str,
        tree: &ReleaseTree,
        platform: Platform,
    ) -> Result<Self, Failure> {
        let unusable = |reason: String| {
            Failure::new(ErrorCode::ReleaseInvalid, format!("{url} is no folder of a release: {reason}"))
                .with("url", url)
        };
        let text = tree.read(folder::MANIFEST, MAX_MANIFEST_BYTES).await?;
        let found: FolderManifest = serde_json::from_slice(&text)
            .map_err(|error| unusable(format!("its manifest cannot be read ({error})")))?;
        let name = platform.as_str();
        let Some(entry) = found.files.get(name) else {
            let message = format!("{url} holds no release for {platform}");
            return Err(Failure::new(ErrorCode::PlatformUnsupported, message).with("url", url));
        };
        let signature =
            tree.read(&format!("{name}{}", folder::SIGNATURE_SUFFIX), MAX_SIGNATURE_BYTES).await?;
        let signature =
            String::from_utf8(signature).map_err(|_| unusable("its signature is no text".to_owned()))?;
        let manifest = ReleaseManifest {
            version: found.version.clone(),
            platform,
            checksum: entry.sha256.clone(),
            size: entry.size,
            signature: Some(signature),
        };
        let url = Some(format!("{}/{name}", url.trim_end_matches('/')));
        let file = ReleaseFile { manifest, url, bundle: None, program: None, vouched: false };
        Ok(Self { node_id, node_name: None, version: found.version, file: Some(file) })
    }

    /// The program at `path`, which is the one that runs: whoever runs it as root believes it already.
    pub(crate) fn of_program(node_id: NodeId, path: PathBuf, platform: Platform) -> Result<Self, Failure> {
        let bytes = fs::read(&path).map_err(|error| Failure::io("read", &path, &error))?;
        let version = ReleaseVersion::running();
        let manifest = ReleaseManifest {
            version: version.clone(),
            platform,
            checksum: checksum(&bytes),
            size: bytes.len() as u64,
            signature: None,
        };
        let file = ReleaseFile { manifest, url: None, bundle: None, program: Some(path), vouched: true };
        Ok(Self { node_id, node_name: None, version, file: Some(file) })
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
        if let Some(path) = &file.program {
            let promise = Promise::of(file.manifest.clone(), &path.display().to_string(), None)?;
            return Ok((promise, Source::Program(path.clone())));
        }
        let (origin, source) = match (&file.bundle, &file.url) {
            (Some(bundle), _) => (bundle.path.display().to_string(), Source::Bundle(bundle.path.clone())),
            (None, url) => {
                let text = url.as_deref().unwrap_or_default();
                let url = http::parse(text, "the release's URL", insecure_http)?;
                (text.to_owned(), Source::Server(url))
            }
        };
        if !file.vouched && key.is_none() {
            let message = format!(
                "nobody vouches for what is in {origin}: neither the token nor --release-key names a key, and no controller is asked"
            );
            return Err(Failure::new(ErrorCode::SignatureMissing, message));
        }
        Ok((Promise::of(file.manifest.clone(), &origin, key)?, source))
    }
}

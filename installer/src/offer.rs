//! What is to be installed, whence, and on whose word: the controller's plan, with the file from its release server or from a bundle, or
//! a bundle alone. Decides nothing about the machine.

use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    installation::InstallationPlan,
    release::{Platform, ReleaseManifest},
};

use crate::{
    bundle::Bundle,
    controller::Controller,
    failure::Failure,
    http,
    install::Request,
    release_key,
    step::Source,
    verify::{Promise, same_file},
};

/// See the file's head.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) node_id: NodeId,
    /// As the controller calls it; nobody knows where no controller was asked.
    pub(crate) node_name: Option<String>,
    pub(crate) release: ReleaseManifest,
    /// The URL that the controller gave.
    url: Option<String>,
    bundle: Option<Bundle>,
}

impl Offer {
    /// What `controller` plans for this node; from `bundle`, if there is one, which must hold that very release.
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
        let (node_id, node_name) = (node_id.clone(), Some(node_name.clone()));
        Ok(Self { node_id, node_name, release, url: Some(download_url.clone()), bundle })
    }

    /// What is in `bundle`, for a machine that cannot ask its controller.
    pub(crate) fn of_bundle(node_id: NodeId, bundle: Bundle) -> Self {
        Self { node_id, node_name: None, release: bundle.release.clone(), url: None, bundle: Some(bundle) }
    }

    /// Where the release comes from, and what it must be. Where no controller vouches for it, a key must.
    pub(crate) fn promise(&self, request: &Request) -> Result<(Promise, Source), Failure> {
        let key =
            release_key::demanded(request.release_key.as_deref(), request.token.claims().rel.as_deref())?;
        let (origin, source) = match (&self.bundle, &self.url) {
            (Some(bundle), _) => (bundle.path.display().to_string(), Source::Bundle(bundle.path.clone())),
            (None, url) => {
                let text = url.as_deref().unwrap_or_default();
                let url = http::parse(text, "the plan's download URL", request.settings.insecure_http)?;
                (text.to_owned(), Source::Server(url))
            }
        };
        if self.url.is_none() && key.is_none() {
            let message = format!(
                "nobody vouches for what is in {origin}: neither the token nor --release-key names a key, and no controller is asked"
            );
            return Err(Failure::new(ErrorCode::SignatureMissing, message));
        }
        Ok((Promise::of(self.release.clone(), &origin, key.as_ref())?, source))
    }
}

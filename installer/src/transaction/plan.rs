//! Decides which steps bring a machine from what it is to what it must be: a pure function. Where a
//! machine must not be changed it refuses, before anything is; on a machine that is right already
//! it plans nothing.

use std::path::Path;

use aio_host::layout::Layout;
use aio_host::token::NodeToken;
use aio_protocol::{
    error_code::ErrorCode,
    release::{ReleaseVersion, index::KeyId},
};
use secrecy::ExposeSecret;

use crate::{
    controller::http,
    failure::{Failure, not_a_file},
    machine::{entry::Entry, observe::Observed},
    release::{offer::Source, verify::Promise},
    request::Goal,
    shipped,
    transaction::{
        config_text::{self, Settings},
        proof::Proof,
        step::{self, Step},
    },
};

/// What the machine must be.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) token: &'a NodeToken,
    pub(crate) settings: &'a Settings,
    /// What the release must be, and where it comes from; none where a package has brought it.
    pub(crate) release: Option<(Promise, Source)>,
    /// The authorities that the operator makes known, in PEM.
    pub(crate) authorities: Option<&'a [u8]>,
    /// The keys (base64) of the releases that the controller may update the node to; none where
    /// updates stay as they are on this machine.
    pub(crate) updates: Option<Vec<String>>,
    /// What the installation comes to.
    pub(crate) goal: Goal,
    /// Whether a newer version may be replaced by an older one.
    pub(crate) allow_downgrade: bool,
    /// Whether a machine that is another node may become this one.
    pub(crate) replace_identity: bool,
}

/// What is to be done, in this order, and what proves that it was right.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) proof: Option<Proof>,
}

impl Plan {
    /// The releases that stay, where another one is switched to.
    pub(crate) fn releases(&self) -> Option<Vec<&ReleaseVersion>> {
        self.steps.iter().find_map(|step| match step {
            Step::SwitchRelease(switch) if switch.link.ends_with("current") => {
                Some([&switch.version].into_iter().chain(&switch.previous).collect())
            }
            _ => None,
        })
    }

    /// The words of the steps and of the proof.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().map(Step::name).chain(self.proof.iter().map(|_| Proof::NAME))
    }
}

/// The way from `observed` to `target`.
pub(crate) fn plan(observed: &Observed, target: &Target<'_>, layout: &Layout) -> Result<Plan, Failure> {
    refuse_masked(observed)?;
    refuse_other_identity(observed, target)?;
    let places = [
        (&observed.config, layout.config()),
        (&observed.ca_file, layout.ca_file()),
        (&observed.token, layout.token()),
        (&observed.unit, layout.unit()),
        (&observed.declaration, layout.sysusers()),
        (&observed.current, layout.current()),
        (&observed.command, layout.command()),
    ];
    if let Some((_, path)) = places.iter().find(|(entry, _)| **entry == Entry::Other) {
        return Err(not_a_file(path));
    }
    let steps = needed(observed, target, layout)?;
    if !steps.is_empty() {
        refuse_read_only(observed)?;
        if target.release.is_some() {
            refuse_noexec(observed, layout)?;
        }
    }
    let proof = match target.goal {
        Goal::Online(patience) if !steps.is_empty() => {
            Some(Proof { node: target.token.claims().sub.clone(), patience })
        }
        _ => None,
    };
    Ok(Plan { steps, proof })
}

fn needed(observed: &Observed, target: &Target<'_>, layout: &Layout) -> Result<Vec<Step>, Failure> {
    let mut steps = Steps::default();
    match &target.release {
        Some((promise, source)) => {
            refuse_downgrade(observed, target, &promise.release.version)?;
            release(&mut steps, observed, promise, source, layout)?;
            settings(&mut steps, observed, target, layout)?;
            units(&mut steps, observed, &promise.release.version, layout);
            updater(&mut steps, observed, target, &promise.release.version, layout);
        }
        // A package has brought program, user and unit, and keeps them; this machine's own is what
        // it cannot bring.
        None => {
            refuse_beside_package(observed, layout)?;
            refuse_updates_of_package(target)?;
            settings(&mut steps, observed, target, layout)?;
        }
    }
    let running = matches!(observed.service.active_state.as_str(), "active" | "activating" | "reloading");
    let wanted = running || target.goal != Goal::Enabled;
    if observed.service.file_state != "enabled" {
        let starts_later = (!wanted).then(|| observed.state.clone());
        steps.push(step::EnableUnit { starts_later });
    }
    if wanted && (steps.worker_changes || !running) {
        let patience = match target.goal {
            Goal::Online(patience) => Some(patience),
            Goal::Ready | Goal::Enabled => None,
        };
        steps.push(step::StartUnit { running, patience, state: observed.state.clone() });
    }
    Ok(steps.list)
}

/// The steps so far, and whether a running worker must read anew what they change.
#[derive(Default)]
struct Steps {
    list: Vec<Step>,
    worker_changes: bool,
}

impl Steps {
    /// A step that a running worker does not mind.
    fn push(&mut self, step: impl Into<Step>) {
        self.list.push(step.into());
    }

    /// A step after which a running worker is to be restarted.
    fn push_for_worker(&mut self, step: impl Into<Step>) {
        self.push(step);
        self.worker_changes = true;
    }
}

/// The program in its place, and the user that it runs as.
fn release(
    steps: &mut Steps,
    observed: &Observed,
    promise: &Promise,
    source: &Source,
    layout: &Layout,
) -> Result<(), Failure> {
    let version = &promise.release.version;
    if observed.placed.as_ref() != Some(&promise.release.checksum) {
        refuse_full(observed, promise, layout)?;
        let into = layout.releases().join(format!(".fetch-{version}"));
        let (source, promise) = (source.clone(), Box::new(promise.clone()));
        steps.push_for_worker(step::FetchRelease { source, promise, into: into.clone() });
        let to = layout.release(version).join(shipped::BINARY);
        steps.push_for_worker(step::PlaceRelease { fetched: into, to });
    }
    if !observed.declaration.is_file(shipped::DECLARATION.as_bytes(), 0o644) {
        steps.push(step::DeclareUser { path: layout.sysusers() });
    }
    if !observed.user {
        steps.push(step::CreateUser { declaration: layout.sysusers() });
    }
    Ok(())
}

/// What is of this machine alone.
fn settings(
    steps: &mut Steps,
    observed: &Observed,
    target: &Target<'_>,
    layout: &Layout,
) -> Result<(), Failure> {
    if let Some(step) = config(observed, target, layout)? {
        steps.push_for_worker(step);
    }
    let token = target.token.secret();
    if !observed.token.is_file(token.expose_secret().as_bytes(), shipped::TOKEN_MODE) {
        steps.push_for_worker(step::WriteToken { path: layout.token(), token: token.clone() });
    }
    Ok(())
}

/// The unit, and which release it runs.
fn units(steps: &mut Steps, observed: &Observed, version: &ReleaseVersion, layout: &Layout) {
    let unit_changes = !observed.unit.is_file(shipped::UNIT_TEXT.as_bytes(), 0o644);
    if unit_changes {
        let keep = observed.older_unit.as_ref().map(|older| older.backup.clone());
        steps.push_for_worker(step::WriteUnit { path: layout.unit(), keep });
    }
    if !observed.current.is_link(Path::new(&version.to_string())) {
        steps.push_for_worker(step::SwitchRelease {
            link: layout.current(),
            version: version.clone(),
            previous: present_release(observed),
        });
    }
    let target_of_command = layout.current().join(shipped::BINARY);
    if !observed.command.is_link(&target_of_command) {
        steps.push(step::LinkCommand { link: layout.command(), target: target_of_command });
    }
    if unit_changes {
        steps.push(step::ReloadManager);
    }
}

/// Root's part of updates, where it is asked for or there already: then it is of this release, too.
fn updater(
    steps: &mut Steps,
    observed: &Observed,
    target: &Target<'_>,
    version: &ReleaseVersion,
    layout: &Layout,
) {
    let there = &observed.updater;
    if target.updates.is_none() && !there.is_there() {
        return;
    }
    let units = shipped::UPDATER_UNITS.iter().zip(&there.units);
    let changed = units.filter(|((_, text), unit)| !unit.is_file(text.as_bytes(), shipped::UNIT_MODE));
    let mut files: Vec<_> =
        changed.map(|((name, text), _)| (layout.units().join(name), text.as_bytes().to_vec())).collect();
    let reloads = !files.is_empty();
    for key in target.updates.iter().flatten() {
        let name = format!("{}.pub", KeyId::of_public_key(key).map_or_else(String::new, String::from));
        if !there.keys.contains(&name) {
            let text = format!("untrusted comment: the key of releases, minisign {name}\n{key}\n");
            files.push((layout.release_keys().join(name), text.into_bytes()));
        }
    }
    if !files.is_empty() {
        steps.push(step::WriteUnits { files });
    }
    if reloads {
        steps.push(step::ReloadManager);
    }
    if there.link.as_deref() != Some(Path::new(&version.to_string())) {
        let (link, previous) = (layout.updater(), None);
        steps.push(step::SwitchRelease { link, version: version.clone(), previous });
    }
    if !there.is_open() {
        steps.push(step::EnableUpdater { starts: target.goal != Goal::Enabled });
    }
}

fn config(
    observed: &Observed,
    target: &Target<'_>,
    layout: &Layout,
) -> Result<Option<step::WriteConfig>, Failure> {
    let path = layout.config();
    let mut files = Vec::new();
    let mut settings = target.settings.clone();
    if let Some(authorities) = target.authorities {
        let ca_file = layout.ca_file();
        if !observed.ca_file.is_file(authorities, shipped::CONFIG_MODE) {
            files.push((ca_file.clone(), authorities.to_vec(), shipped::CONFIG_MODE));
        }
        settings.ca_file = Some(ca_file);
    }
    let (existing, mode) = match &observed.config {
        Entry::File { bytes, mode } => {
            let text = std::str::from_utf8(bytes).map_err(|error| {
                let message = format!("{} is not a valid configuration: {error}", path.display());
                Failure::new(ErrorCode::ConfigInvalid, message).with("path", path.display().to_string())
            })?;
            (Some(text), *mode)
        }
        _ => (None, shipped::CONFIG_MODE),
    };
    if settings.controller_endpoint.is_none() {
        settings.controller_endpoint = adopted_endpoint(observed, target)?;
    }
    let text = config_text::desired(&path, existing, &settings)?;
    if existing != Some(text.as_str()) {
        files.push((path, text.into_bytes(), mode));
    }
    Ok((!files.is_empty()).then_some(step::WriteConfig { files }))
}

/// The controller's endpoint of a unit that ours replaces, where neither the token nor the
/// configuration says the same or better.
fn adopted_endpoint(observed: &Observed, target: &Target<'_>) -> Result<Option<String>, Failure> {
    let Some(endpoint) = observed.older_unit.as_ref().and_then(|older| older.controller_endpoint.as_ref())
    else {
        return Ok(None);
    };
    let configured = match &observed.config {
        Entry::File { bytes, .. } => std::str::from_utf8(bytes).is_ok_and(config_text::names_endpoint),
        _ => false,
    };
    if configured || *endpoint == target.token.claims().ctl {
        return Ok(None);
    }
    http::check_endpoint(
        endpoint,
        "the endpoint in the unit that is replaced",
        target.settings.insecure_http,
    )?;
    Ok(Some(endpoint.clone()))
}

/// Of a package, the package manager changes the version, and nobody else.
fn refuse_updates_of_package(target: &Target<'_>) -> Result<(), Failure> {
    if target.updates.is_none() {
        return Ok(());
    }
    let message = "aio-worker is installed as a package here, so --auto-update is for apt to do";
    Err(Failure::new(ErrorCode::UpdatePackaged, message))
}

fn refuse_masked(observed: &Observed) -> Result<(), Failure> {
    if observed.service.is_masked() || observed.unit.is_link(Path::new("/dev/null")) {
        return Err(Failure::new(ErrorCode::UnitMasked, observed.service.mask()));
    }
    Ok(())
}

fn refuse_other_identity(observed: &Observed, target: &Target<'_>) -> Result<(), Failure> {
    // What is no token names no other node, and is replaced.
    let installed = match &observed.token {
        Entry::File { bytes, .. } => {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            NodeToken::parse(&text.into()).ok().map(|token| token.claims().sub.clone())
        }
        _ => None,
    };
    let older = || observed.older_unit.as_ref()?.node.clone();
    let Some(present) = installed.or_else(older) else { return Ok(()) };
    let wanted = &target.token.claims().sub;
    if present == *wanted || target.replace_identity {
        return Ok(());
    }
    let message = format!("this machine is installed as node {present}, and the token is for node {wanted}");
    Err(Failure::new(ErrorCode::IdentityConflict, message)
        .with("installed", present.as_str())
        .with("requested", wanted.as_str()))
}

fn refuse_downgrade(
    observed: &Observed,
    target: &Target<'_>,
    wanted: &ReleaseVersion,
) -> Result<(), Failure> {
    let Some(present) = present_release(observed) else { return Ok(()) };
    if present <= *wanted || target.allow_downgrade {
        return Ok(());
    }
    let message = format!("{present} is installed, and the controller offers the older {wanted}");
    Err(Failure::new(ErrorCode::DowngradeRefused, message)
        .with("installed", present.to_string())
        .with("offered", wanted.to_string()))
}

/// The release that runs, or would.
fn present_release(observed: &Observed) -> Option<ReleaseVersion> {
    match &observed.current {
        Entry::Link { target } => target.to_str()?.parse().ok(),
        _ => None,
    }
}

fn refuse_read_only(observed: &Observed) -> Result<(), Failure> {
    let Some(first) = observed.read_only.first() else { return Ok(()) };
    let all: Vec<_> = observed.read_only.iter().map(|dir| dir.display().to_string()).collect();
    let message = format!("{} is on a read-only file system", first.display());
    Err(Failure::new(ErrorCode::TargetReadOnly, message).with("paths", all))
}

fn refuse_noexec(observed: &Observed, layout: &Layout) -> Result<(), Failure> {
    if observed.releases.runs_programs {
        return Ok(());
    }
    let path = layout.releases().display().to_string();
    let message = format!("{path} is on a file system that is mounted with noexec");
    Err(Failure::new(ErrorCode::TargetNoexec, message).with("path", path))
}

/// Twice the release: the download, and room to spare for logs and state.
fn refuse_full(observed: &Observed, promise: &Promise, layout: &Layout) -> Result<(), Failure> {
    let bytes = promise.release.size.saturating_mul(2);
    let Some((needed, available, what)) = observed.releases.lacks(bytes) else { return Ok(()) };
    let path = layout.releases().display().to_string();
    let message = format!("{path} needs {needed} free {what}, and there are {available}");
    Err(Failure::new(ErrorCode::DiskFull, message)
        .with("path", path)
        .with("needed", needed)
        .with("available", available))
}

/// What hides a package's program or unit would make two workers of one, or run another than apt
/// keeps.
fn refuse_beside_package(observed: &Observed, layout: &Layout) -> Result<(), Failure> {
    let hides = |entry: &Entry| matches!(entry, Entry::File { .. } | Entry::Link { .. });
    let places = [(&observed.unit, layout.unit()), (&observed.command, layout.command())];
    let Some((_, path)) = places.into_iter().find(|(entry, _)| hides(entry)) else { return Ok(()) };
    let message = format!(
        "aio-worker is installed as a package, and {} takes the place of a part of it",
        path.display()
    );
    Err(Failure::new(ErrorCode::PackageConflict, message).with("path", path.display().to_string()))
}

#[cfg(test)]
mod tests;

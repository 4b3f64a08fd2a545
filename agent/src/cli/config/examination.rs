//! Reads file, environment and token as the daemon would, and finds all that it would stumble over.
//! Each part is judged by the function by which the daemon judges it, and the last word has the
//! daemon's own loading. Connects to nothing.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aio_host::{config::ConfigFile, layout::Layout, proxy::Proxy, tls, token::NodeToken};
use aio_installer::Failure;
use aio_protocol::{error_code::ErrorCode, time::Timestamp};

use super::{
    file::Reading,
    finding::{Finding, Place, Severity},
};
use crate::{
    config::{
        DEFAULT_LOG, Environment, Flags, WorkerConfig, boolean, checked_endpoint, is_withheld, named_proxy,
        node_id, token_source,
    },
    endpoint::Endpoint,
    health::Thresholds,
    logging,
    tokens::source::TokenSource,
    update::policy::Settings,
};

/// The daemon's unit hides what is below these (`ProtectHome=`).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// A check under way.
pub(super) struct Examination<'a> {
    path: PathBuf,
    env: Environment<'a>,
    reading: Reading<ConfigFile>,
    findings: Vec<Finding>,
}

/// What was said of the route to the controller, other than by the token.
struct Route {
    /// What was named instead of the token's, if something was, and whether it can be used.
    endpoint: Option<Option<Endpoint>>,
    /// Whether a proxy was named.
    by_proxy: bool,
}

/// A value, and where it stands.
type Placed<T> = Option<(T, Place)>;

impl<'a> Examination<'a> {
    /// Everything that is to be said.
    pub(super) fn of(flags: &Flags, layout: &Layout, env: Environment<'a>, now: Timestamp) -> Vec<Finding> {
        let env = &|name: &str| env(name).filter(|value| !value.trim().is_empty());
        let mut check = Examination::new(flags, layout, env);
        let (route, insecure) = check.settings(flags.config.is_some());
        let token = check.token(flags, layout);
        if let Some(token) = &token {
            check.claims(token, now);
            check.route(token, route, insecure);
        }
        let refused = check.findings.iter().any(|finding| finding.severity == Severity::Error);
        // Standard input was read to its end above.
        let once = flags.token_file.as_deref() == Some(Path::new("-"));
        if token.is_some() && !refused && !once {
            check.load(flags);
        }
        check.findings
    }

    /// The same without the token, for whoever looks at that one elsewhere.
    pub(super) fn of_settings(layout: &Layout, env: Environment<'a>) -> Vec<Finding> {
        let env = &|name: &str| env(name).filter(|value| !value.trim().is_empty());
        let mut check = Examination::new(&Flags::default(), layout, env);
        check.settings(false);
        check.findings
    }

    fn new(flags: &Flags, layout: &Layout, env: Environment<'a>) -> Self {
        let path = flags.config.clone().unwrap_or_else(|| layout.config());
        Self { path, env, reading: Reading::default(), findings: Vec::new() }
    }

    /// File and environment; gives the route to the controller as far as they say it, and whether
    /// it may be in the clear.
    fn settings(&mut self, named: bool) -> (Route, bool) {
        self.read_file(named);
        let insecure = self.insecure();
        let route = Route { endpoint: self.endpoint(insecure), by_proxy: self.proxy() };
        self.log();
        self.gpu_library();
        self.health();
        self.updates();
        self.ca_file();
        (route, insecure)
    }

    fn add(&mut self, severity: Severity, unusable: Failure, place: Place) {
        self.findings.push(Finding::new(severity, unusable.code, place, unusable.message));
    }

    fn warn(&mut self, place: Place, message: String, cure: &str) {
        let finding = Finding::new(Severity::Warning, ErrorCode::ConfigInvalid, place, message);
        self.findings.push(finding.cured_by(cure));
    }

    /// What came out well, if it did.
    fn judged<T>(&mut self, result: Result<T, Failure>, place: Place) -> Option<T> {
        result.map_err(|unusable| self.add(Severity::Error, unusable, place)).ok()
    }

    /// The place of a key in the file.
    fn at(&self, key: &str) -> Place {
        Place { key: Some(key.to_owned()), line: self.reading.line(key), ..Place::file(&self.path) }
    }

    /// What the variable or else the key says, and which of the two.
    fn value(&self, variable: &str, key: &str, of_file: Option<String>) -> Placed<String> {
        let of_variable = (self.env)(variable).map(|text| (text, Place::variable(variable)));
        of_variable.or_else(|| of_file.map(|text| (text, self.at(key))))
    }

    fn read_file(&mut self, named: bool) {
        match fs::read_to_string(&self.path) {
            Ok(text) => self.reading = Reading::of(&text),
            // The usual file need not be there; one that was named must.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let message = "this user may not read the file, so that nothing in it was checked";
                self.note(ErrorCode::FileFailed, Place::file(&self.path), message);
            }
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                let unusable = Failure::new(ErrorCode::ConfigInvalid, message);
                self.add(Severity::Error, unusable, Place::file(&self.path));
            }
        }
        for fault in self.reading.faults.clone() {
            let place = Place { key: fault.key, line: fault.line, ..Place::file(&self.path) };
            self.add(Severity::Error, Failure::new(ErrorCode::ConfigInvalid, fault.message), place);
        }
    }

    fn note(&mut self, code: ErrorCode, place: Place, message: &str) {
        let finding = Finding::new(Severity::Note, code, place, message);
        self.findings.push(finding.cured_by("Run it again with sudo to have it checked, too."));
    }

    fn insecure(&mut self) -> bool {
        const VARIABLE: &str = "AIO_INSECURE_HTTP";
        let of_file = self.reading.config.insecure_http.unwrap_or(false);
        let Some(text) = (self.env)(VARIABLE) else { return of_file };
        self.judged(boolean(VARIABLE, &text), Place::variable(VARIABLE)).unwrap_or(of_file)
    }

    fn endpoint(&mut self, insecure: bool) -> Option<Option<Endpoint>> {
        let of_file = self.reading.config.controller_endpoint.clone();
        let (text, place) = self.value("AIO_CONTROLLER_ENDPOINT", "controller_endpoint", of_file)?;
        Some(self.judged(checked_endpoint(&text, insecure), place))
    }

    fn proxy(&mut self) -> bool {
        let of_file = self.reading.config.proxy.clone();
        let Some((text, place)) = self.value("AIO_PROXY", "proxy", of_file) else { return false };
        let (variable, key) = if place.variable.is_some() { (Some(text), None) } else { (None, Some(text)) };
        self.judged(named_proxy(variable, key), place);
        true
    }

    fn log(&mut self) {
        let of_file = self.reading.config.log.clone();
        let found = self.value("AIO_LOG", "log", of_file);
        let (text, place) = found.unwrap_or_else(|| (DEFAULT_LOG.to_owned(), Place::default()));
        self.judged(logging::parse(&text), place);
    }

    fn health(&mut self) {
        let table = self.reading.config.health.clone().unwrap_or_default();
        if let Err(error) = Thresholds::of(&table) {
            let place = self.at(&error.key());
            self.add(Severity::Error, error.into(), place);
        }
    }

    fn updates(&mut self) {
        let table = self.reading.config.updates.clone().unwrap_or_default();
        if let Err(error) = Settings::of(&table) {
            let place = self.at(&error.key());
            self.add(Severity::Error, error.into(), place);
        }
    }

    fn gpu_library(&mut self) {
        let of_file = self.reading.config.nvml_library.clone().map(|path| path.display().to_string());
        if let Some((text, place)) = self.value("AIO_NVML_LIBRARY", "nvml_library", of_file)
            && text.contains('/')
            && !Path::new(&text).exists()
        {
            let cure = "Name the driver's library, or leave the key out: the dynamic linker finds libnvidia-ml.so.1.";
            self.warn(place, format!("there is no {text}: GPUs will not be seen"), cure);
        }
    }

    fn ca_file(&mut self) {
        let of_file = self.reading.config.ca_file.clone().map(|path| path.display().to_string());
        let Some((text, place)) = self.value("AIO_CA_FILE", "ca_file", of_file) else { return };
        let path = PathBuf::from(&text);
        if is_withheld(&path) {
            let message = format!("this user may not read {text}, so that nothing in it was checked");
            return self.note(ErrorCode::FileFailed, place, &message);
        }
        let trust = tls::Trust { pin: None, ca_file: Some(path.clone()) };
        if let Err(error) = tls::client_config(&trust) {
            return self.add(Severity::Error, error.into(), place);
        }
        let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode()).unwrap_or(0o777);
        if HOMES.iter().any(|home| path.starts_with(home)) {
            let cure = "Copy it to /etc/aio-worker/ca.pem, and name that.";
            self.warn(place, format!("the service sees no home folder, and so not {text}"), cure);
        } else if mode & 0o004 == 0 {
            let message = format!("{text} is not for everybody to read (mode {:04o})", mode & 0o7777);
            self.warn(place, message, "Let the user aio-worker read it: it holds no secret (chmod 0644).");
        }
    }

    fn token(&mut self, flags: &Flags, layout: &Layout) -> Option<NodeToken> {
        let (token, place) = match token_source(flags, self.env, layout) {
            Err(_) if is_withheld(&layout.token()) => {
                let message = "this user may not read the token, so that it, and the route to its controller, were not checked";
                self.note(ErrorCode::FileFailed, Place::file(&layout.token()), message);
                return None;
            }
            Err(unusable) => (Err(unusable), Place::default()),
            Ok(source) => {
                let place = match &source {
                    TokenSource::File(path) => Place::file(path),
                    TokenSource::Given(_) if flags.token_file.is_some() => Place::default(),
                    TokenSource::Given(_) => Place::variable("AIO_NODE_TOKEN"),
                };
                (source.read().map_err(Failure::from), place)
            }
        };
        self.judged(token, place)
    }

    fn claims(&mut self, token: &NodeToken, now: Timestamp) {
        self.judged(node_id(token.claims(), self.env), Place::variable("AIO_NODE_ID"));
        if token.claims().expired(now) {
            let message = format!("the token's life ended at {}", token.claims().expires_at());
            let unusable = Failure::new(ErrorCode::TokenExpired, message);
            self.add(Severity::Warning, unusable, Place::default());
        }
    }

    /// The route to the controller, which only with the token is known.
    fn route(&mut self, token: &NodeToken, route: Route, insecure: bool) {
        let endpoint = match route.endpoint {
            Some(endpoint) => endpoint,
            None => self.judged(checked_endpoint(&token.claims().ctl, insecure), Place::default()),
        };
        // What was named, and cannot be used, is told already.
        let Some(endpoint) = endpoint else { return };
        if endpoint.exposed() {
            let message = format!("{endpoint} is not encrypted: the token crosses the network in the clear");
            let finding = Finding::new(Severity::Warning, ErrorCode::InsecureUrl, Place::default(), message);
            self.findings.push(finding.cured_by("Serve the controller over TLS; plain ws is for labs."));
        }
        if !route.by_proxy
            && let Err(error) = Proxy::from_environment(endpoint.uri())
        {
            let unusable = Failure::new(ErrorCode::ConfigInvalid, error.to_string());
            self.add(Severity::Error, unusable, Place::default());
        }
    }

    /// The daemon's own loading: it knows what this check may have forgotten.
    fn load(&mut self, flags: &Flags) {
        self.judged(WorkerConfig::load(flags, self.env), Place::default());
    }
}

#[cfg(test)]
mod tests;

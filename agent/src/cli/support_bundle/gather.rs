//! Asks everybody at once, each with a deadline: who hangs costs seconds and is noted. Changes
//! nothing on the machine, needs no root and no installation. What is secret in the answers is
//! `redaction`'s business.

use std::{error::Error, io, path::PathBuf, time::Duration};

use aio_host::{
    cgroups::Cgroups,
    config::ConfigFile,
    gpu::{GpuWatcher, NvmlProbe},
    layout::{Layout, UNDELIVERED, UNIT},
    systemd::{Systemd, SystemdError, UnitState},
};
use aio_installer::doctor::{self, Examination, Finding};
use aio_protocol::{release::build, time::Timestamp};
use serde_json::{Value, json};

use super::{
    files::{self, Follow},
    journal,
    part::{Content, Found, Part, aside, pretty, within},
    redaction::Redactor,
    tokens::{self, Token},
};
use crate::{
    cli::{config::diagnosis, doctor::of_gpus, inventory::inventory, start::host},
    config::{GpuSettings, environment},
    health::Thresholds,
    status_socket, telemetry,
};

/// For one call to systemd.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// For a few files, on a disk that answers.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// A worker whose loop turns answers at once.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// A driver without persistence mode wakes its GPUs for the first question, which takes seconds.
const DRIVER_PATIENCE: Duration = Duration::from_secs(20);

/// The checks wait for names, connections and answers, each with a deadline of its own.
const DOCTOR_PATIENCE: Duration = Duration::from_secs(30);

/// Where is looked, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) layout: Layout,
    /// Where the status socket is.
    pub(super) runtime_dir: PathBuf,
    /// What `AIO_NODE_TOKEN` says.
    pub(super) token: Option<String>,
    /// What `AIO_NVML_LIBRARY` says.
    pub(super) nvml_library: Option<PathBuf>,
    pub(super) root: bool,
}

/// What there is, and who knows what of it is secret.
pub(super) async fn gather(subject: &Subject) -> (Vec<Part>, Redactor) {
    let Subject { layout, .. } = subject;
    let (systemd, refusal) = match Systemd::connect_within(BUS_PATIENCE).await {
        Ok(systemd) => (Some(systemd), None),
        Err(error) => (None, Some(error)),
    };
    let unreached = refusal.as_ref().map(words).unwrap_or_default();
    let manager = systemd.as_ref().ok_or(unreached);
    // What is wrong with the configuration is the doctor's to say.
    let config = ConfigFile::read(&layout.config()).unwrap_or_default();
    let library = |_: &str| Some(subject.nvml_library.as_ref()?.to_string_lossy().into_owned());
    let settings = GpuSettings::of(config.clone(), &library).unwrap_or_default();
    let gpus = GpuWatcher::start(NvmlProbe::new(settings.nvml_library.clone()));
    let gpus = gpus.as_ref().map_err(|error| format!("no thread for the GPU driver: {error}"));

    let (doctor, versions, unit, journal, kernel, status, inventory, disk) = tokio::join!(
        doctor(subject, &config, systemd.as_ref(), refusal, (gpus.clone(), &settings.health)),
        within(2 * DISK_PATIENCE, versions(layout, manager.clone())),
        within(4 * BUS_PATIENCE, unit(manager.clone())),
        journal::of_unit(),
        journal::of_driver(),
        status(subject),
        within(DRIVER_PATIENCE + DISK_PATIENCE, surveyed(gpus.clone(), &settings.health)),
        Disk::read(subject),
    );
    let mut redactor = Redactor::default();
    let Disk { tokens, claims, units, config, install_journal, updates, reports } = disk;
    tokens.iter().for_each(|token| token.confide(&mut redactor));
    [&units, &config].into_iter().flatten().for_each(|content| redactor.learn(&content.text));
    let mut parts = vec![
        Part::new("doctor.json", "what aio-worker doctor finds, GPUs included", doctor),
        Part::new("versions.json", "versions of worker, systemd, kernel and system", versions),
        Part::new("unit.json", "the service as systemd sees it", unit),
        Part::new("unit.txt", "the unit and its drop-ins", units),
        Part::new("journal.txt", "the service's last lines in the journal", journal),
        Part::new("kernel.txt", "the kernel's lines about the GPU driver in the last week", kernel),
        Part::new("install-journal.jsonl", "the journal of the installation", install_journal),
        Part::new("update.json", "what root says of updates", updates),
        Part::new("config.toml", "the daemon's configuration", config),
        Part::new("tokens.json", "what the node tokens claim, without the tokens", claims),
        Part::new("status.json", "what the running worker says of itself", status),
        Part::new("inventory.json", "what the machine is made of", inventory),
    ];
    parts.extend(reports);
    let texts = parts.iter().filter_map(|part| part.found.as_ref().ok());
    texts.for_each(|content| redactor.notice(&content.text));
    (parts, redactor)
}

/// What lies on the disk.
#[derive(Debug)]
struct Disk {
    tokens: Vec<Token>,
    claims: Found,
    units: Found,
    config: Found,
    install_journal: Found,
    updates: Found,
    reports: Vec<Part>,
}

impl Disk {
    async fn read(subject: &Subject) -> Self {
        let Subject { layout, token, .. } = subject.clone();
        let now = Timestamp::from(std::time::SystemTime::now());
        let read = tokio::time::timeout(DISK_PATIENCE, aside(move || Self::read_now(&layout, token, now)));
        let missing = match read.await {
            Ok(Ok(disk)) => return disk,
            Ok(Err(reason)) => reason,
            Err(_) => format!("the disk gave nothing within {} s", DISK_PATIENCE.as_secs()),
        };
        let missing = || Err(missing.clone());
        Self {
            tokens: Vec::new(),
            claims: missing(),
            units: missing(),
            config: missing(),
            install_journal: missing(),
            updates: missing(),
            reports: Vec::new(),
        }
    }

    fn read_now(layout: &Layout, variable: Option<String>, now: Timestamp) -> Self {
        let tokens = tokens::find(layout, variable);
        let claims: Vec<Value> = tokens.iter().map(|token| token.claims(now)).collect();
        let units = files::units(layout);
        let part = |name: &str, found| {
            Part::new(format!("undelivered/{name}"), "a failure that the controller could not be told", found)
        };
        let mut reports = Vec::new();
        for folder in [layout.undelivered(), layout.state_dir().join(UNDELIVERED)] {
            let because = |error: io::Error| format!("{}: {error}", folder.display());
            match files::undelivered(&folder) {
                Ok(found) => reports.extend(
                    found
                        .into_iter()
                        .map(|(name, text)| part(&name, text.map(Content::from).map_err(because))),
                ),
                Err(error) => reports.push(part("", Err(because(error)))),
            }
        }
        Self {
            claims: if claims.is_empty() { Err("there is no token".to_owned()) } else { pretty(&claims) },
            tokens,
            units: if units.is_empty() { Err(format!("there is no {UNIT}")) } else { Ok(units.into()) },
            config: file(layout.config()),
            install_journal: file(layout.journal_dir().join("journal.jsonl")),
            updates: file(layout.update_status()),
            reports,
        }
    }
}

fn file(path: PathBuf) -> Found {
    let text = files::read(&path, Follow::Links);
    text.map(Content::from).map_err(|error| format!("{}: {error}", path.display()))
}

/// The installer's checks, and those of the configuration and the GPUs; where one part does not
/// come, the others do.
async fn doctor(
    subject: &Subject,
    config: &ConfigFile,
    systemd: Option<&Systemd>,
    refusal: Option<SystemdError>,
    (gpus, thresholds): (Result<&GpuWatcher, String>, &Thresholds),
) -> Found {
    let examination = Examination {
        layout: subject.layout.clone(),
        root: subject.root,
        token: subject.token.clone().map(Into::into),
        ca_file: config.ca_file.clone(),
        proxy: config.proxy.clone(),
        insecure_http: config.insecure_http.unwrap_or(false),
    };
    let machine = async {
        match (systemd, refusal) {
            (Some(systemd), _) => doctor::examine(&examination, Ok(systemd)).await,
            (None, Some(error)) => doctor::examine(&examination, Err(error)).await,
            (None, None) => Vec::new(),
        }
    };
    let of_gpus = async {
        match gpus {
            Ok(gpus) => of_gpus(gpus, thresholds, &subject.runtime_dir).await,
            Err(reason) => vec![Finding::skipped("gpu_driver", reason)],
        }
    };
    let layout = subject.layout.clone();
    let (machine, configuration, of_gpus) = tokio::join!(
        tokio::time::timeout(DOCTOR_PATIENCE, machine),
        tokio::time::timeout(DISK_PATIENCE, aside(move || diagnosis(&layout, &environment))),
        tokio::time::timeout(DOCTOR_PATIENCE, of_gpus),
    );
    let late =
        |what: &str| format!("the checks of {what} gave no answer within {} s", DOCTOR_PATIENCE.as_secs());
    let note = match (&machine, &of_gpus) {
        (Err(_), Err(_)) => return Err(late("the machine and its GPUs")),
        (Err(_), Ok(_)) => Some(late("the machine")),
        (Ok(_), Err(_)) => Some(late("the GPUs")),
        (Ok(_), Ok(_)) => None,
    };
    let mut findings: Vec<_> = machine.into_iter().flatten().collect();
    findings.extend(configuration.into_iter().flatten());
    findings.extend(of_gpus.into_iter().flatten());
    Ok(Content { note, ..pretty(&json!({ "checks": findings }))? })
}

async fn versions(layout: &Layout, manager: Result<&Systemd, String>) -> Found {
    let of_systemd = async { manager?.version().await.map_err(|error| words(&error)) };
    let of_systemd = tokio::time::timeout(BUS_PATIENCE, of_systemd).await;
    let of_systemd = of_systemd.unwrap_or_else(|_| Err("systemd does not answer".to_owned()));
    let layout = layout.clone();
    let (releases, packaged, os, kernel) = aside(move || {
        let read = |path: &str| files::read(&layout.root().join(path), Follow::Links).unwrap_or_default();
        let packaged = layout.packaged_command().exists();
        (files::releases(&layout), packaged, read("etc/os-release"), read("proc/version"))
    })
    .await?;
    let os: serde_json::Map<String, Value> = os
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').into()))
        .collect();
    let (systemd, note) = match of_systemd {
        Ok(version) => (Some(version), None),
        Err(reason) => (None, Some(format!("without systemd's version: {reason}"))),
    };
    let versions = json!({
        "worker": build::number(),
        "platform": build::platform(),
        "commit": build::commit(),
        "installedReleases": releases.0,
        "currentRelease": releases.1,
        "debianPackage": packaged,
        "systemd": systemd,
        "kernel": kernel.trim(),
        "osRelease": os,
    });
    Ok(Content { note, ..pretty(&versions)? })
}

async fn unit(manager: Result<&Systemd, String>) -> Found {
    let state = manager?.unit(UNIT).await.map_err(|error| words(&error))?;
    let UnitState { load_state, active_state, sub_state, file_state, fragment, .. } = &state;
    pretty(&json!({
        "unit": UNIT,
        "loadState": load_state,
        "activeState": active_state,
        "subState": sub_state,
        "fileState": file_state,
        "fragment": fragment,
        "mainPid": state.main_pid,
        "restarts": state.restarts,
        "result": state.result,
        "exitStatus": state.exit_status,
        "statusText": state.status_text,
    }))
}

async fn status(subject: &Subject) -> Found {
    let folder = &subject.runtime_dir;
    let snapshot = status_socket::read(folder, STATUS_PATIENCE).await;
    pretty(&snapshot.map_err(|error| format!("no worker answers in {}: {error}", folder.display()))?)
}

async fn surveyed(gpus: Result<&GpuWatcher, String>, thresholds: &Thresholds) -> Found {
    let facts = host().map_err(|failure| failure.message)?;
    let containers = Box::new(Cgroups::of_this_machine());
    let readings = telemetry::look(facts, containers, gpus?, thresholds.clone(), DRIVER_PATIENCE).await;
    pretty(&inventory(&readings).map_err(|failure| failure.message)?)
}

/// An error with all that it came from.
fn words(error: &SystemdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

//! The new program tries itself beside the running one: as the daemon's user, in the sandbox of the
//! release's own unit, with this node's configuration and token, up to the controller's
//! `connection_ack`. It changes nothing and takes nobody's place, and most faults show here, where
//! they cost no gap.

use std::{fs, path::Path, time::Duration};

use aio_host::{
    files,
    layout::{Layout, REHEARSAL_UNIT, UNIT},
    systemd::SystemdError,
};
use aio_protocol::error_code::ErrorCode;
use serde::Deserialize;

use crate::{failure::Failure, machine::host::Host, shipped};

/// The program gives up by itself after 15 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// So much of what a program printed is passed on.
const MAX_WORDS: usize = 300;

/// Where the program's answer goes, and whatever else it prints.
const ANSWER: &str = "rehearsal";

/// What makes the daemon's unit a rehearsal's: other commands, one try, nothing of the running
/// daemon's folders.
fn drop_in(program: &Path, answer: &Path) -> String {
    let (program, answer) = (program.display(), answer.display());
    format!(
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nTimeoutStartSec={}\nNotifyAccess=none\n\
         ExecStartPre=\nExecStart=\nExecStart={program} rehearse\nExecStartPost=\nExecReload=\n\
         RuntimeDirectory=\nStandardOutput=file:{answer}\nStandardError=inherit\n",
        PATIENCE.as_secs(),
    )
}

/// What a rehearsal says when it did not go well.
#[derive(Deserialize)]
struct Answer {
    code: String,
    message: String,
}

/// Lets the staged program rehearse.
pub(super) async fn rehearse(host: &Host) -> Result<(), Failure> {
    let layout = &host.layout;
    let answer = layout.update_runtime_dir().join(ANSWER);
    prepare(layout, &answer)?;
    let outcome = run(host, &answer).await;
    // The next boot forgets it anyway.
    if let Err(failure) = clear(host, &answer).await {
        tracing::warn!(message = %failure.message, "the rehearsal's unit could not be removed");
    }
    outcome
}

fn prepare(layout: &Layout, answer: &Path) -> Result<(), Failure> {
    let staged = layout.staged_release();
    let unit = staged.join(shipped::UNITS).join(UNIT);
    // A release that brings no unit runs under the present one.
    let text = fs::read(&unit).or_else(|_| fs::read(layout.unit()));
    let text = text.map_err(|error| Failure::io("read", &layout.unit(), &error))?;
    let unit = layout.rehearsal_unit();
    let folder = folder_of(&unit);
    files::create_dir(&folder, 0o755)?;
    files::remove_file(answer)?;
    files::replace_file(&unit, &text, shipped::UNIT_MODE)?;
    let drop_in = drop_in(&staged.join(shipped::BINARY), answer);
    Ok(files::replace_file(&folder.join("rehearsal.conf"), drop_in.as_bytes(), shipped::UNIT_MODE)?)
}

fn folder_of(unit: &Path) -> std::path::PathBuf {
    let mut name = unit.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

async fn run(host: &Host, answer: &Path) -> Result<(), Failure> {
    let systemd = &host.systemd;
    systemd.reload().await?;
    match systemd.start_within(REHEARSAL_UNIT, PATIENCE + Duration::from_secs(5)).await {
        Ok(()) => Ok(()),
        Err(error @ (SystemdError::JobFailed { .. } | SystemdError::JobTimeout { .. })) => {
            let said = fs::read_to_string(answer).unwrap_or_default();
            let told = said.lines().rev().find_map(|line| serde_json::from_str::<Answer>(line).ok());
            let unit = systemd.unit(REHEARSAL_UNIT).await?;
            let ended = format!("`{}`, exit status {}", unit.result, unit.exit_status);
            let message = match &told {
                Some(Answer { code, message }) => format!("the new version tried itself: {code}, {message}"),
                None => format!(
                    "the new version tried itself and ended with {ended} ({error}){}",
                    last_words(&said)
                ),
            };
            // What may pass by itself, a controller that is away above all, is not the release's fault.
            let passes = told.as_ref().and_then(|told| ErrorCode::parse(&told.code));
            let code = match passes.is_some_and(ErrorCode::is_transient) {
                true => ErrorCode::UpdateInconclusive,
                false => ErrorCode::RehearsalFailed,
            };
            let failure = Failure::new(code, message).with("result", unit.result);
            Err(match told {
                Some(Answer { code, .. }) => failure.with("rehearsalCode", code),
                None => failure,
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// What a program printed last that could not say why it ended: a loader's complaint, or a panic's.
fn last_words(said: &str) -> String {
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let words: String = last.unwrap_or_default().chars().take(MAX_WORDS).collect();
    if words.is_empty() { words } else { format!(": {words}") }
}

async fn clear(host: &Host, answer: &Path) -> Result<(), Failure> {
    let unit = host.layout.rehearsal_unit();
    let folder = folder_of(&unit);
    files::remove_file(answer)?;
    files::remove_file(&folder.join("rehearsal.conf"))?;
    files::remove_dir_if_empty(&folder)?;
    files::remove_file(&unit)?;
    // One that failed is remembered until then.
    let _ = host.systemd.reset_failed(REHEARSAL_UNIT).await;
    Ok(host.systemd.reload().await?)
}

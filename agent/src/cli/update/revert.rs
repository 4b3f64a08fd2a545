//! `aio-worker update revert`: asks root to go back to the version before, and follows root's word
//! until it is done. The daemon is stopped and started meanwhile; this command is not the daemon's.

use std::{path::Path, time::Duration};

use aio_host::layout::Layout;
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{
    error_code::ErrorCode,
    update::{LastUpdate, RootAnswer, RootRequest, Verdict},
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::status::{ended, of_root};
use crate::{
    cli::answer::{Answer, print_json, runtime},
    update::root,
};

/// For root to stop one version, start the other, and see it online.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at root's word.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The controller's offers of the version that this node goes back from are refused until somebody says aio-worker update now. To stay at the version before for
good, pin it.

Exit status: 0 the version before runs; 69 there is none to go back to, or root listens to no request (this node was installed without --auto-update);
75 another update is under way, or it took too long; 77 not root; otherwise that of the code that root refuses it with.")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) answer: Answer,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let layout = Layout::default();
    let outcome = runtime()?.block_on(revert(&layout.update_socket(), &layout.update_status(), PATIENCE))?;
    match arguments.answer.output {
        Output::Json => print_json(&json!({ "last": outcome })),
        Output::Text => print(&format!("{}\n", ended(&outcome))),
    }
}

async fn revert(socket: &Path, status: &Path, patience: Duration) -> Result<LastUpdate, Failure> {
    let stream = root::connect(socket).await.map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let code = if denied { ErrorCode::NotRoot } else { ErrorCode::RevertImpossible };
        Failure::new(code, format!("root does not listen at {}: {error}", socket.display()))
    })?;
    let before = of_root(status)?.last;
    let late = |what: &str| {
        Failure::new(ErrorCode::UpdateInterrupted, format!("{what} within {} s", patience.as_secs()))
    };
    let asked =
        timeout(patience, root::ask_over(stream, &RootRequest::Revert { update_id: Uuid::now_v7() })).await;
    match asked.map_err(|_| late("root did not answer"))?? {
        RootAnswer::Refused { code, message } => return Err(refused(&code, message)),
        RootAnswer::Staged | RootAnswer::Switching => {}
    }
    let ended = async {
        loop {
            // What is taken back in its probation is told under its own id.
            let status = of_root(status)?;
            if let Some(last) = status.last.filter(|last| before.as_ref() != Some(last)) {
                return Ok::<_, Failure>(last);
            }
            sleep(LOOK_INTERVAL).await;
        }
    };
    let last: LastUpdate = timeout(patience, ended).await.map_err(|_| late("root was not done"))??;
    if matches!(last.verdict, Verdict::Reverted | Verdict::Succeeded) {
        return Ok(last);
    }
    let code = last.code.clone().unwrap_or_else(|| ErrorCode::UpdateInterrupted.to_string());
    Err(refused(&code, last.message.unwrap_or_else(|| "it was not done".to_owned())))
}

fn refused(code: &str, message: String) -> Failure {
    match ErrorCode::parse(code) {
        Some(code) => Failure::new(code, message),
        // Of a root that is newer than this program.
        None => Failure::new(ErrorCode::UpdateInterrupted, format!("{message} [{code}]")),
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::update::RootStatus;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixListener,
    };

    use super::*;

    async fn reverted(verdict: Option<Verdict>, answer: &'static str) -> Result<Verdict, ErrorCode> {
        let folder = tempfile::tempdir().unwrap();
        let (socket, status) = (folder.path().join("root.sock"), folder.path().join("status.json"));
        let listener = UnixListener::bind(&socket).unwrap();
        let said = status.clone();
        let root = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let RootRequest::Revert { update_id } = serde_json::from_str(&line).unwrap() else {
                    panic!()
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                assert!(!update_id.is_nil());
                let last = verdict.map(|verdict| LastUpdate {
                    update_id: Uuid::nil(),
                    from: "v1.1.0".parse().unwrap(),
                    version: "v1.0.0".parse().unwrap(),
                    verdict,
                    code: None,
                    message: None,
                    at: crate::update::order::now(),
                });
                let text = serde_json::to_vec(&RootStatus { last, ..RootStatus::default() }).unwrap();
                aio_host::files::replace_file(&said, &text, 0o644).unwrap();
            }
        });
        let outcome = revert(&socket, &status, Duration::from_millis(500)).await;
        root.abort();
        outcome.map(|last| last.verdict).map_err(|failure| failure.code)
    }

    #[tokio::test]
    async fn a_way_back_is_done_when_root_says_so() {
        const SWITCHING: &str = "{\"answer\":\"switching\"}\n";
        const REFUSED: &str =
            "{\"answer\":\"refused\",\"code\":\"REVERT_IMPOSSIBLE\",\"message\":\"none\"}\n";
        assert_eq!(reverted(Some(Verdict::Reverted), SWITCHING).await, Ok(Verdict::Reverted));
        assert_eq!(reverted(Some(Verdict::Faulty), SWITCHING).await, Err(ErrorCode::UpdateInterrupted));
        assert_eq!(reverted(None, SWITCHING).await, Err(ErrorCode::UpdateInterrupted), "it is never done");
        assert_eq!(reverted(None, REFUSED).await, Err(ErrorCode::RevertImpossible));
        let nowhere = Path::new("/nonexistent/root.sock");
        let failure = revert(nowhere, nowhere, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::RevertImpossible);
    }
}

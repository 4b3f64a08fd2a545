//! The daemon's side of what it has to do with root: one question over root's socket, and what root
//! says of itself in its status file. Believes the answers and decides nothing on them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use aio_protocol::{
    error_code::ErrorCode,
    failure::Failure,
    update::{RootAnswer, RootRequest, RootStatus},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// A longer answer, or status, is none of root's.
const MAX_BYTES: u64 = 64 * 1024;

/// Asks root, and waits for its answer as long as the caller does.
pub async fn ask(socket: &Path, request: &RootRequest) -> Result<RootAnswer, Failure> {
    let silent = |error: io::Error| failed(format!("root does not listen at {}: {error}", socket.display()));
    ask_over(connect(socket).await.map_err(silent)?, request).await
}

/// A connection for one question.
pub async fn connect(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket).await
}

/// Asks root over a connection of its own.
pub async fn ask_over(mut stream: UnixStream, request: &RootRequest) -> Result<RootAnswer, Failure> {
    let silent = |error: io::Error| failed(format!("root does not answer: {error}"));
    let mut line = serde_json::to_vec(request)
        .map_err(|error| failed(format!("the request could not be written: {error}")))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(silent)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_BYTES)).read_line(&mut answer).await.map_err(silent)?;
    if answer.is_empty() {
        return Err(silent(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str(&answer)
        .map_err(|error| failed(format!("root's answer was not understood: {error}")))
}

fn failed(message: String) -> Failure {
    Failure::new(ErrorCode::UpdateInterrupted, message)
}

/// What root says of itself; an error where nobody can read it, or it is not understood. Where
/// there is no file, root has never done anything.
pub fn status(path: &Path) -> io::Result<RootStatus> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RootStatus::default()),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use aio_protocol::update::RootPhase;
    use tokio::net::UnixListener;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn root_is_asked_in_one_line_and_what_it_does_not_say_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.sock");
        let request = RootRequest::Switch { update_id: Uuid::nil() };
        let error = ask(&path, &request).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::UpdateInterrupted);

        let listener = UnixListener::bind(&path).unwrap();
        for (said, expected) in [
            ("{\"answer\":\"switching\"}\n", Ok(RootAnswer::Switching)),
            ("", Err("UPDATE_INTERRUPTED")),
            ("yes\n", Err("UPDATE_INTERRUPTED")),
        ] {
            let root = async {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                assert_eq!(serde_json::from_str::<RootRequest>(&line).unwrap(), request);
                stream.write_all(said.as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(ask(&path, &request), root);
            assert_eq!(
                answer.as_ref().map_err(|failure| failure.code.as_str()),
                expected.as_ref().map_err(|code| *code)
            );
        }
    }

    #[test]
    fn where_root_has_said_nothing_it_is_idle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        assert_eq!(status(&path).unwrap(), RootStatus::default());
        std::fs::write(&path, r#"{"phase":"probation","later":1}"#).unwrap();
        assert_eq!(status(&path).unwrap().phase, RootPhase::Probation);
        std::fs::write(&path, "{").unwrap();
        assert!(status(&path).is_err());
    }
}

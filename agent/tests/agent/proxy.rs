//! A worker behind a proxy.

use std::sync::{Arc, Mutex};

use aio_protocol::snapshot::SessionState;
use aio_worker::session::machine::Timings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::{
    controller::Controller,
    daemon::{Daemon, folder_with, token},
};

/// A proxy that connects everybody with the controller at `url`, and what it was asked. While the
/// answer is not 200 it refuses.
async fn proxy(url: &str, answer: Arc<Mutex<&'static str>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let behind = url.trim_start_matches("ws://").split('/').next().unwrap().to_owned();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let (behind, answer, heard) = (behind.clone(), *answer.lock().unwrap(), Arc::clone(&heard));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(peer.read_u8().await?);
                }
                heard.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                peer.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await?;
                if answer.starts_with("200") {
                    copy_bidirectional(&mut peer, &mut TcpStream::connect(behind).await?).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    (address.to_string(), asked)
}

#[tokio::test]
async fn a_worker_is_online_through_its_proxy_and_says_when_that_refuses() {
    let mut controller = Controller::start().await;
    let answer = Arc::new(Mutex::new("403 Forbidden"));
    let (address, asked) = proxy(&controller.url, Arc::clone(&answer)).await;
    // A name that nobody but the proxy can make anything of.
    let folder = folder_with(&token("ws://aiwm.invalid/ws/node", "first"));
    let config = format!("insecure_http = true\nproxy = \"http://me:word@{address}\"\n");
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let daemon = Daemon::on(&folder, Timings::default(), None);
    let refused = daemon.snapshot(|snapshot| snapshot.session.code.as_deref() == Some("PROXY_REFUSED")).await;
    assert!(refused.session.detail.contains(&address), "{:?}", refused.session);
    assert!(!refused.session.detail.contains("word"), "a password is told: {:?}", refused.session);

    *answer.lock().unwrap() = "200 Connected";
    // Sooner than it would try by itself.
    daemon.replace_token(&token("ws://aiwm.invalid/ws/node", "second"));
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    daemon.snapshot(|snapshot| snapshot.session.state == SessionState::Online).await;
    let asked = asked.lock().unwrap().last().unwrap().to_ascii_lowercase();
    assert!(asked.starts_with("connect aiwm.invalid:80 "), "{asked}");
    assert!(asked.contains("proxy-authorization: basic "), "{asked}");
}

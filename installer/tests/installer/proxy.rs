//! A proxy that leads to the controller, or does not.

use std::fs;

use aio_protocol::error_code::ErrorCode;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{bad_input::fails, world::World};

/// A proxy that hands everything on to `goal`, whatever it was asked for; or refuses with this line.
async fn proxy(goal: String, refusal: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let goal = goal.clone();
            tokio::spawn(async move {
                if let Some(refusal) = refusal {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(peer.read_u8().await?);
                    }
                    return peer.write_all(format!("HTTP/1.1 {refusal}\r\n\r\n").as_bytes()).await;
                }
                let mut goal = TcpStream::connect(goal).await?;
                copy_bidirectional(&mut peer, &mut goal).await.map(drop)
            });
        }
    });
    address
}

#[tokio::test]
async fn a_proxy_that_was_named_is_used_and_told_to_the_daemon() {
    let mut world = World::new().await;
    let goal = world.change(|server| server.base.clone()).replace("http://", "");
    // A name that nobody but the proxy can make anything of.
    world.use_token("first", &json!({ "api": "http://aiwm.invalid", "ctl": "ws://aiwm.invalid/ws/node" }));
    world.request.settings.insecure_http = true;
    fails(&world, ErrorCode::ControllerUnreachable).await;
    let proxy = proxy(goal, None).await;
    world.request.settings.proxy = Some(proxy.clone());

    world.install().await.unwrap();

    let config = fs::read_to_string(world.host.layout.config()).unwrap();
    assert!(config.contains(&format!("\nproxy = \"{proxy}\"\n")), "{config}");
    // It stands there now, and need not be named again.
    world.request.settings.proxy = None;
    assert_eq!(world.planned().await, [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_not_the_controller() {
    for refusal in ["403 Forbidden", "407 Proxy Authentication Required"] {
        let mut world = World::new().await;
        world.use_token(
            "first",
            &json!({ "api": "https://aiwm.invalid", "ctl": "wss://aiwm.invalid/ws/node" }),
        );
        world.request.settings.proxy = Some(proxy(String::new(), Some(refusal)).await);
        fails(&world, ErrorCode::ProxyRefused).await;
    }
    let mut world = World::new().await;
    world.request.settings.proxy = Some("socks5://127.0.0.1:1".to_owned());
    fails(&world, ErrorCode::ConfigInvalid).await;
}

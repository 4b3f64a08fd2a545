//! A session that begins and does not go on: connects with the token that the daemon would use, up
//! to the controller's word that it is let in, and closes without registering. So it takes nobody's
//! place, and leaves nothing behind.

use std::time::Duration;

use aio_host::token::TokenError;
use aio_installer::Failure;
use aio_protocol::{
    error_code::ErrorCode,
    wire::{ConnectionAck, ControllerMessage},
};
use tokio::time::timeout;

use super::{
    Trusted,
    send_queue::Outgoing,
    setback::{Cause, Setback},
    socket::{Event, Link},
};
use crate::{
    aiwm::account::{Account, AccountRoute},
    config::WorkerConfig,
    tokens::rotation::Rotation,
};

/// For the other end to complete the closing handshake.
const CLOSING: Duration = Duration::from_secs(1);

/// Rehearses for at most as long as `patience`.
pub async fn rehearse(config: &WorkerConfig, patience: Duration) -> Result<ConnectionAck, Failure> {
    // As the daemon chooses, which may have been given a token in place of the installed one.
    let rotation = Rotation::new(config.endpoint.is_some()).dialling(config.tokens()?);
    let held = rotation.in_use().ok_or_else(|| Failure::from(TokenError::Missing))?;
    let credentials = config.credentials(held.token.clone())?;
    let address = credentials.endpoint.in_words();
    if let Some(route) = &credentials.aiwm {
        // A second connection would end the one that runs. A login says the same of everything but the
        // WebSocket.
        return logged_in(route, patience).await;
    }
    let mut link = Link::dial(credentials, Trusted::default(), Account::default());
    let ack = timeout(patience, let_in(&mut link)).await.unwrap_or_else(|_| {
        let message = format!("{address} did not let this worker in within {} s", patience.as_secs());
        Err(Failure::new(ErrorCode::ControllerUnreachable, message))
    })?;
    link.send(Outgoing::Close);
    let closed = async { while !matches!(link.event().await, Event::Lost(_)) {} };
    // Whoever does not answer a close is left to find out.
    let _ = timeout(CLOSING, closed).await;
    Ok(ack)
}

async fn logged_in(route: &AccountRoute, patience: Duration) -> Result<ConnectionAck, Failure> {
    let pass = timeout(patience, Account::default().pass(route)).await;
    pass.unwrap_or_else(|_| {
        let message = format!("AIWM let nobody log in within {} s", patience.as_secs());
        Err(Failure::new(ErrorCode::ControllerUnreachable, message))
    })?;
    Ok(ConnectionAck {
        status: "success".to_owned(),
        node_id: route.credentials.node_id.clone(),
        controller_id: "aiwm".to_owned(),
        server_version: String::new(),
    })
}

async fn let_in(link: &mut Link) -> Result<ConnectionAck, Failure> {
    loop {
        match link.event().await {
            Event::Text(text) => {
                if let Ok(frame) = ControllerMessage::decode(&text)
                    && let ControllerMessage::ConnectionAck(ack) = frame.message
                {
                    return Ok(ack);
                }
            }
            Event::Lost(Setback { cause: Cause::Failed(failure), .. }) => return Err(failure),
            Event::Lost(Setback { cause: Cause::Announced(message), .. }) => {
                return Err(Failure::new(ErrorCode::ControllerUnreachable, message));
            }
            Event::Opened | Event::Ponged(_) => {}
        }
    }
}

//! Another configuration while the session lives: read, handed to all parts, and used by a new
//! connection where it says something else of the connection. One that cannot be used changes
//! nothing, and is complained about until one can.

use aio_installer::Failure;
use std::sync::Arc;

use sd_notify::NotifyState;
use tracing::{info, warn};

use super::{Driver, Input, State};
use crate::{config::WorkerConfig, notify::reloading};

impl Driver {
    pub(super) fn reload(&mut self) {
        self.notifier.tell(NotifyState::Custom(&reloading()));
        match (self.reload.read)(&self.config) {
            Ok(config) => self.adopt(config),
            Err(Failure { code, message, .. }) => {
                warn!(code = code.as_str(), "the configuration stays as it was: {message}");
                let complaint = format!("not reloaded, {}: {message}", code.as_str());
                self.reporter.complain(Some(complaint), &*self.notifier);
            }
        }
        self.notifier.tell(NotifyState::Ready);
    }

    fn adopt(&mut self, config: WorkerConfig) {
        let authorities = config.authorities();
        let connects_otherwise = !self.config.connects_like(&config) || self.authorities != authorities;
        self.config = config;
        self.authorities = authorities;
        self.trusted.forget();
        self.rotation = std::mem::take(&mut self.rotation).with_endpoint(self.config.endpoint.is_some());
        self.reporter.complain(None, &*self.notifier);
        self.go_by_update_policy();
        // Whoever keeps a part of it hears of it here.
        self.configs.send_replace(Arc::new(self.config.clone()));
        let waiting = matches!(self.session.state(), State::Waiting { .. });
        let again = connects_otherwise || waiting;
        info!(reconnects = again, "the configuration was reloaded");
        if again {
            self.take(Input::TokenReplaced);
        } else {
            self.check_tokens();
        }
    }
}

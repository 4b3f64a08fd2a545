//! Another configuration while the session lives: read, handed to all parts, and used by a new
//! connection where it says something else of the connection. One that cannot be used changes
//! nothing, and is complained about until one can.

use std::sync::Arc;

use aio_installer::Failure;
use sd_notify::NotifyState;
use tracing::{info, warn};

use super::{Driver, Input, State};
use crate::{
    notify::reloading,
    reload::{Loaded, News},
};

impl Driver {
    pub(super) fn hear_of_reload(&mut self, news: News) {
        match news {
            News::Asked => self.reload(),
            News::Read(read) => self.reloaded(*read),
        }
    }

    fn reload(&mut self) {
        self.notifier.tell(NotifyState::Custom(&reloading()));
        self.reload.begin(self.config.clone());
    }

    fn reloaded(&mut self, read: Result<Loaded, Failure>) {
        match read {
            Ok(loaded) => self.adopt(loaded),
            Err(Failure { code, message, .. }) => {
                warn!(code = code.as_str(), "the configuration stays as it was: {message}");
                let complaint = format!("not reloaded, {}: {message}", code.as_str());
                self.reporter.complain(Some(complaint), &*self.notifier);
            }
        }
        self.notifier.tell(NotifyState::Ready);
    }

    fn adopt(&mut self, Loaded { config, authorities }: Loaded) {
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

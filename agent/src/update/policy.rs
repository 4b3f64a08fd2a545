//! What the operator of the node says of updates: the `[updates]` table of config.toml as checked
//! values, and what the machine itself is to them.

use aio_host::config::UpdatesTable;
use aio_protocol::{release::ReleaseVersion, update::ManagedBy};

use super::window::{NoWindow, Window};

/// Whether updates are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The node takes none.
    #[default]
    Off,
    /// The node is offered them; each waits for `aio-worker update now`.
    Notify,
    /// The node takes them when its window is open.
    Auto,
}

impl Mode {
    /// The modes by the names that a configuration gives them.
    pub const NAMES: [(&str, Self); 3] = [("off", Self::Off), ("notify", Self::Notify), ("auto", Self::Auto)];
}

/// The operator's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether updates are taken.
    pub mode: Mode,
    /// When; at any time where nothing is said.
    pub window: Option<Window>,
    /// Wait while a GPU is busier than this, in percent.
    pub gpu_above: Option<u8>,
    /// The only version that is taken.
    pub pin: Option<ReleaseVersion>,
}

/// A value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`updates.{key}`: {why}")]
pub struct Senseless {
    key: &'static str,
    why: String,
}

impl Senseless {
    /// Which key of the configuration it is, with its table.
    pub fn key(&self) -> String {
        format!("updates.{}", self.key)
    }
}

impl Settings {
    /// Checks the table; what it leaves out is as usual.
    pub fn of(table: &UpdatesTable) -> Result<Self, Senseless> {
        let senseless = |key: &'static str| move |why: String| Senseless { key, why };
        let mode = table.mode.as_deref().map_or(Ok(Mode::Off), |text| {
            let found = Mode::NAMES.into_iter().find(|(name, _)| *name == text);
            found.map(|(_, mode)| mode).ok_or_else(|| format!("`{text}` is not off, notify or auto"))
        });
        let window = table.window.as_deref().map(|text| text.parse().map_err(|no: NoWindow| no.to_string()));
        let gpu_above = table.defer_while_gpu_above.map(|percent| {
            u8::try_from(percent)
                .ok()
                .filter(|percent| *percent <= 100)
                .ok_or_else(|| format!("it is {percent}, and must be 0 to 100"))
        });
        let pin = table.pin.as_deref().map(|text| {
            text.parse().map_err(|invalid: aio_protocol::release::InvalidName| invalid.to_string())
        });
        Ok(Self {
            mode: mode.map_err(senseless("mode"))?,
            window: window.transpose().map_err(senseless("window"))?,
            gpu_above: gpu_above.transpose().map_err(senseless("defer_while_gpu_above"))?,
            pin: pin.transpose().map_err(senseless("pin"))?,
        })
    }
}

/// What the machine decides by: the operator's word, and what this installation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The operator's word.
    pub settings: Settings,
    /// Whether a package owns the version.
    pub packaged: bool,
    /// Whether root's socket is there.
    pub updater: bool,
}

impl Policy {
    /// Who says which version comes; when it comes may be the operator's to say.
    pub fn managed_by(&self) -> ManagedBy {
        match self.settings.mode {
            _ if self.packaged => ManagedBy::Package,
            Mode::Auto | Mode::Notify if self.updater => ManagedBy::Controller,
            _ => ManagedBy::Operator,
        }
    }

    /// Whether the worker can update itself.
    pub fn is_able(&self) -> bool {
        self.updater && !self.packaged && self.settings.mode != Mode::Off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_takes_no_updates() {
        assert_eq!(Settings::of(&UpdatesTable::default()), Ok(Settings::default()));
        assert!(!Policy { updater: true, ..Policy::default() }.is_able());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |change: fn(&mut UpdatesTable)| {
            let mut table = UpdatesTable::default();
            change(&mut table);
            Settings::of(&table).unwrap_err()
        };
        for (key, error) in [
            ("updates.mode", refused(|table| table.mode = Some("always".into()))),
            ("updates.window", refused(|table| table.window = Some("at night".into()))),
            ("updates.defer_while_gpu_above", refused(|table| table.defer_while_gpu_above = Some(101))),
            ("updates.pin", refused(|table| table.pin = Some("1.0.0".into()))),
        ] {
            assert_eq!(error.key(), key);
            assert!(error.to_string().starts_with(&format!("`{key}`: ")), "{error}");
        }
    }

    #[test]
    fn who_changes_the_version_follows_from_package_mode_and_updater() {
        let managed = |mode, packaged, updater| {
            let policy = Policy { settings: Settings { mode, ..Settings::default() }, packaged, updater };
            (policy.managed_by(), policy.is_able())
        };
        assert_eq!(managed(Mode::Auto, false, true), (ManagedBy::Controller, true));
        assert_eq!(managed(Mode::Auto, false, false), (ManagedBy::Operator, false));
        assert_eq!(managed(Mode::Notify, false, true), (ManagedBy::Controller, true));
        assert_eq!(managed(Mode::Off, false, true), (ManagedBy::Operator, false));
        assert_eq!(managed(Mode::Auto, true, true), (ManagedBy::Package, false));
    }
}

//! `config.toml`: the file as people write it, and the checked form that the program uses. What the
//! token says (endpoints, node) need not stand here; what stands here overrules it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file: every key is optional, an unknown one is an error. `packaging/config.toml` documents each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The controller's WebSocket endpoint, instead of the token's `ctl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_endpoint: Option<String>,
    /// Allow plain `http` and `ws` to other machines: for labs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_http: Option<bool>,
    /// Authorities (PEM) to trust beside the operating system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The proxy to the controller, `http://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The log filter, e.g. `info` or `aio_worker=debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The GPU driver's library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvml_library: Option<PathBuf>,
    /// From when on a GPU is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthTable>,
    /// How the node takes updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<UpdatesTable>,
}

/// From when on a GPU or the machine is not well: the table `[health]`. The daemon checks the values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthTable {
    /// GPUs that this machine is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_gpus: Option<u32>,
    /// Memory errors beyond correction, since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncorrected_errors: Option<u64>,
    /// Percent of the time that heat may slow a GPU down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thermal_slowdown_percent: Option<u32>,
    /// Percent of the time that a power limit may slow a GPU down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_slowdown_percent: Option<u32>,
    /// Seconds that a GPU has to be better until that is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_secs: Option<u64>,
    /// Hours that an error of the driver (Xid) counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid_hours: Option<u64>,
    /// Errors (Xid) that do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignored_xids: Option<Vec<u64>>,
    /// Percent of a file system that may be used; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_percent: Option<u32>,
    /// Percent of a file system's inodes that may be used; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode_percent: Option<u32>,
    /// Percent of main memory that may be used; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<u32>,
    /// °C that a sensor of the machine may report; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<u32>,
}

/// How the node takes updates: the table `[updates]`. The daemon checks the values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdatesTable {
    /// `off`, `notify` or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// When, in the machine's own time, e.g. `Sat,Sun 02:00-05:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Wait while a GPU is busier than this, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defer_while_gpu_above: Option<u32>,
    /// The only version that is taken, e.g. `v1.0.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{path} is not a valid configuration")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

impl ConfigFile {
    /// Reads `path`; a file that is not there is an empty one.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Reads `text`, which came from `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|source| ConfigError::Invalid { path: path.to_owned(), source: Box::new(source) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named() {
        let error =
            ConfigFile::parse(Path::new("config.toml"), "contoller_endpoint = \"ws://x\"").unwrap_err();
        let ConfigError::Invalid { source, .. } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("contoller_endpoint"), "{source}");
    }

    #[test]
    fn the_documented_sample_is_valid_and_knows_every_key() {
        let sample = include_str!("../../packaging/config.toml");
        assert_eq!(ConfigFile::parse(Path::new("sample"), sample).unwrap(), ConfigFile::default());
        let uncommented: String = sample
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|line| format!("{}\n", line.trim_start_matches('#')))
            .collect();
        let every = ConfigFile::parse(Path::new("sample"), &uncommented).unwrap();
        let keys = toml::Table::try_from(&every).unwrap();
        assert_eq!(keys.len(), 8, "a key of ConfigFile is missing in packaging/config.toml: {keys:?}");
        let health = toml::Table::try_from(every.health.unwrap()).unwrap();
        assert_eq!(health.len(), 11, "a key of HealthTable is missing in packaging/config.toml: {health:?}");
        let updates = toml::Table::try_from(every.updates.unwrap()).unwrap();
        assert_eq!(
            updates.len(),
            4,
            "a key of UpdatesTable is missing in packaging/config.toml: {updates:?}"
        );
    }
}

//! The services of a machine that matter to its work: what runs containers, what keeps the GPU
//! driver awake, and the worker itself. Says how each stands; which they are, and how one finds
//! out, is the worker's to know.

use serde::{Deserialize, Serialize};

use crate::{text::bounded, time::Timestamp};

/// A service at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The unit's full name, e.g. `docker.service`.
    #[serde(deserialize_with = "bounded::<_, _, 255>")]
    pub name: String,
    /// How it stands.
    #[serde(default)]
    pub state: ServiceState,
    /// The version of the package that brought it, as its makers count, e.g. `24.0.7`; absent where
    /// nobody says.
    #[serde(default, deserialize_with = "bounded::<_, _, 64>", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How often systemd has restarted it by itself since somebody started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Since when it stands so; absent where it never stood otherwise since the machine booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// How a service stands, in a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It runs.
    Active,
    /// It starts, and does not serve yet.
    Activating,
    /// It does not run, and nothing is wrong with that.
    Inactive,
    /// It ended with an error, or is restarted again and again because of one.
    Failed,
    /// An administrator forbade it.
    Masked,
    /// There is none on this machine.
    Absent,
    /// Nobody could be asked; also a word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Service {
    /// A service of which nothing but its name is known.
    pub fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: ServiceState::Unknown,
            version: None,
            restarts: None,
            since: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_later_version_is_unknown_and_the_rest_is_read() {
        let text = r#"{"name":"docker.service","state":"dreaming","restarts":3,"mood":"calm"}"#;
        let service: Service = serde_json::from_str(text).unwrap();
        let expected = Service { restarts: Some(3), ..Service::unknown("docker.service") };
        assert_eq!(service, expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let service = Service { state: ServiceState::Absent, ..Service::unknown("containerd.service") };
        let text = serde_json::to_string(&service).unwrap();
        assert_eq!(text, r#"{"name":"containerd.service","state":"absent"}"#);
    }
}

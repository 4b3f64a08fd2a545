//! Containers of a machine, as its kernel and its kubelet's links tell them. Says how each stands; how one
//! finds out, is the worker's to know. Absent is what nobody said.

use serde::{Deserialize, Serialize};

use crate::{
    inventory::understood,
    text::{bounded, list, words},
};

/// A container at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The engine's id for it, 64 hexadecimal digits.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub id: String,
    /// What made it.
    #[serde(default)]
    pub engine: ContainerEngine,
    /// How it stands. Left out when `running`.
    #[serde(default, skip_serializing_if = "ContainerState::is_running")]
    pub state: ContainerState,
    /// Its name within its pod.
    #[serde(default, deserialize_with = "bounded::<_, _, 253>", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pod that it belongs to.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<Pod>>,
    /// Percent of one processor, since the reading before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usage: Option<f32>,
    /// Seconds of processors that it has used since it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Bytes of main memory, copies of files among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// Bytes of main memory that it may have; absent where there is no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Processes of it that the kernel killed because its memory was full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// How often it was started again: by the kubelet's count, or since the worker has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// The GPUs that its processes use, as the inventory names them.
    #[serde(default, deserialize_with = "words::<_, 64>", skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// What is wrong with it.
    #[serde(default, deserialize_with = "list::<_, _, 8>", skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ContainerProblem>,
}

/// A pod of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Its id in the cluster.
    #[serde(deserialize_with = "bounded::<_, _, 64>")]
    pub uid: String,
    /// Its name, where the kubelet's links can be read.
    #[serde(deserialize_with = "bounded::<_, _, 253>", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The namespace of the cluster that it is in, where the kubelet's links can be read.
    #[serde(deserialize_with = "bounded::<_, _, 63>", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What makes containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ContainerEngine {
    /// Docker.
    Docker,
    /// containerd without Docker.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// One that the names of its control groups do not tell; also a word of a later version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// How a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// It has processes.
    #[default]
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ran minutes ago and does not now. Told only of one that something is wrong with.
    Exited,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// What is wrong with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContainerProblem {
    /// It is started again and again.
    Restarting,
    /// The kernel killed processes of it because its memory was full.
    OomKilled,
}

impl Container {
    /// What stays the same when it is started again: its place in its pod, or its id. Where the names of a
    /// pod's containers are not known, the pod's.
    pub fn place(&self) -> String {
        match (&self.pod, &self.name) {
            (Some(pod), Some(name)) => format!("{}/{name}", pod.uid),
            (Some(pod), None) => pod.uid.clone(),
            (None, _) => self.id.clone(),
        }
    }

    /// What a person calls it: `namespace/pod/name` as far as that is known, else the first digits of its id.
    pub fn title(&self) -> String {
        let short = || self.id.get(..12).unwrap_or(&self.id).to_owned();
        let Some(pod) = &self.pod else { return self.name.clone().unwrap_or_else(short) };
        let parts = [pod.namespace.as_ref(), pod.name.as_ref(), self.name.as_ref()];
        let known: Vec<_> = parts.into_iter().flatten().map(String::as_str).collect();
        if known.is_empty() { short() } else { known.join("/") }
    }

    /// Whether it takes part of the machine: it does even while it is paused.
    pub fn is_there(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }
}

impl ContainerEngine {
    /// As the wire and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Unknown => "unknown",
        }
    }
}

impl ContainerState {
    /// As the wire and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
        }
    }

    fn is_running(&self) -> bool {
        *self == Self::Running
    }
}

impl ContainerProblem {
    /// As people read it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Restarting => "restarts again and again",
            Self::OomKilled => "out of memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_later_version_are_unknown_or_left_out_and_the_rest_is_read() {
        let text =
            r#"{"id":"ab","engine":"lxd","state":"dreaming","problems":["bored","oom_killed"],"pod":7}"#;
        let expected = Container {
            id: "ab".into(),
            state: ContainerState::Unknown,
            problems: vec![ContainerProblem::OomKilled],
            ..Container::default()
        };
        assert_eq!(serde_json::from_str::<Container>(text).unwrap(), expected);
        for engine in [
            ContainerEngine::Docker,
            ContainerEngine::Containerd,
            ContainerEngine::CriO,
            ContainerEngine::Podman,
            ContainerEngine::Unknown,
        ] {
            assert_eq!(serde_json::to_string(&engine).unwrap(), format!("\"{}\"", engine.as_str()));
        }
    }

    #[test]
    fn a_container_is_called_by_what_is_known_of_it() {
        let plain = Container { id: "0123456789abcdef".into(), ..Container::default() };
        assert_eq!((plain.title().as_str(), plain.place().as_str()), ("0123456789ab", "0123456789abcdef"));
        let pod = Pod { uid: "7c9".into(), ..Pod::default() };
        let nameless = Container { pod: Some(Box::new(pod.clone())), ..plain.clone() };
        assert_eq!((nameless.title().as_str(), nameless.place().as_str()), ("0123456789ab", "7c9"));
        let pod = Pod { name: Some("cart-0".into()), namespace: Some("shop".into()), ..pod };
        let named = Container { pod: Some(Box::new(pod)), name: Some("web".into()), ..plain };
        assert_eq!((named.title().as_str(), named.place().as_str()), ("shop/cart-0/web", "7c9/web"));
    }
}

//! What the name of a control group says: whose container it is, or which pod's. Pure.

use aio_protocol::container::ContainerEngine;

/// A container's control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub id: String,
    pub engine: ContainerEngine,
    /// The id of its pod.
    pub pod: Option<String>,
}

/// What stands before an id, by systemd's driver and by cgroupfs's. `libpod-payload-` is Podman's with
/// `--cgroups=split`, as in Quadlet's services.
const PREFIXES: [(&str, ContainerEngine); 6] = [
    ("docker-", ContainerEngine::Docker),
    ("cri-containerd-", ContainerEngine::Containerd),
    ("nerdctl-", ContainerEngine::Containerd),
    ("crio-", ContainerEngine::CriO),
    ("libpod-payload-", ContainerEngine::Podman),
    ("libpod-", ContainerEngine::Podman),
];

/// Folders of cgroupfs's driver whose children are called by their ids alone.
const PARENTS: [(&str, ContainerEngine); 3] = [
    ("docker", ContainerEngine::Docker),
    // containerd's namespaces: nerdctl's and the kubelet's.
    ("default", ContainerEngine::Containerd),
    ("k8s.io", ContainerEngine::Containerd),
];

/// The container that a group `name` in `parent` is of, within the pod `pod`.
pub(super) fn container(name: &str, parent: &str, pod: Option<&str>) -> Option<Named> {
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    let of = |id: &str, engine| {
        is_id(id).then(|| Named { id: id.to_owned(), engine, pod: pod.map(str::to_owned) })
    };
    let prefixed = PREFIXES.iter().find_map(|(prefix, engine)| of(unit.strip_prefix(prefix)?, *engine));
    prefixed.or_else(|| {
        let known = PARENTS.iter().find(|(folder, _)| *folder == parent).map(|(_, engine)| *engine);
        // Which engine a kubelet with cgroupfs's driver asks is not to be seen.
        of(unit, known.or_else(|| pod.map(|_| ContainerEngine::Unknown))?)
    })
}

/// The id of the pod that a group is of: `kubepods-burstable-pod<id>.slice` with `_` for `-`, or `pod<id>`.
pub(super) fn pod(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(unit) => {
            let of_kubelet = unit.contains("kubepods");
            unit.rsplit_once("-pod").filter(|_| of_kubelet).map(|(_, uid)| uid.replace('_', "-"))?
        }
        None => name.strip_prefix("pod")?.to_owned(),
    };
    let plausible = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    plausible.then_some(uid)
}

/// Whether a group holds what an engine runs beside a container.
pub(super) fn is_helper(name: &str) -> bool {
    name.starts_with("libpod-conmon-") || name.starts_with("crio-conmon-")
}

/// Whether this is an engine's id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_by_the_names_that_both_drivers_give() {
        use ContainerEngine::{Containerd, CriO, Docker, Podman, Unknown};
        let id = "a".repeat(64);
        for (name, parent, pod, engine) in [
            ("docker-ID.scope", "system.slice", None, Some(Docker)),
            ("ID", "docker", None, Some(Docker)),
            ("cri-containerd-ID.scope", "kubepods-besteffort-podX.slice", Some("X"), Some(Containerd)),
            ("nerdctl-ID.scope", "system.slice", None, Some(Containerd)),
            ("ID", "default", None, Some(Containerd)),
            ("crio-ID.scope", "kubepods-podX.slice", Some("X"), Some(CriO)),
            ("crio-ID", "podX", Some("X"), Some(CriO)),
            ("ID", "podX", Some("X"), Some(Unknown)),
            ("libpod-ID.scope", "machine.slice", None, Some(Podman)),
            ("libpod-ID", "libpod_parent", None, Some(Podman)),
            ("libpod-payload-ID", "web.service", None, Some(Podman)),
            ("libpod-conmon-ID.scope", "machine.slice", None, None),
            ("crio-conmon-ID.scope", "system.slice", None, None),
            ("ID", "system.slice", None, None),
            ("docker.service", "system.slice", None, None),
            ("docker-short.scope", "system.slice", None, None),
        ] {
            let found = container(&name.replace("ID", &id), parent, pod);
            assert_eq!(found.as_ref().map(|it| it.engine), engine, "{name} in {parent}");
            if let Some(found) = found {
                assert_eq!((found.id, found.pod.as_deref()), (id.clone(), pod), "{name}");
            }
        }
        assert!(is_helper(&format!("libpod-conmon-{id}.scope")));
        assert!(!is_id(&"A".repeat(64)));
    }

    #[test]
    fn a_pod_is_told_by_its_id_and_a_word_that_begins_alike_is_none() {
        let uid = "0c9d3d1e-5b0c-4f7b-9a53-3a0d3a3c8f11";
        for (name, pod_of) in [
            (format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_")), Some(uid)),
            (format!("kubepods-pod{}.slice", uid.replace('-', "_")), Some(uid)),
            (format!("kubelet-kubepods-besteffort-pod{}.slice", uid.replace('-', "_")), Some(uid)),
            (format!("pod{uid}"), Some(uid)),
            ("pod3f8e1c2d3f8e1c2d3f8e1c2d3f8e1c2d".into(), Some("3f8e1c2d3f8e1c2d3f8e1c2d3f8e1c2d")),
            ("kubepods-burstable.slice".into(), None),
            ("podman.service".into(), None),
            ("podman".into(), None),
            (format!("user-pod{uid}.slice"), None),
        ] {
            assert_eq!(pod(&name).as_deref(), pod_of, "{name}");
        }
    }
}

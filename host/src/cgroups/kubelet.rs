//! What the kubelet says of containers by the links to their logs:
//! `/var/log/containers/POD_NAMESPACE_NAME-ID.log` leads to
//! `/var/log/pods/NAMESPACE_POD_UID/NAME/RESTARTS.log`. Only the links are read, which every user may.

use std::{collections::HashMap, fs, path::Path};

use aio_protocol::container::Pod;

use super::names::is_id;

/// Links that are read.
const MAX_LINKS: usize = 4096;

/// A container as its link tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub pod: Pod,
    /// Its name in the pod.
    pub container: String,
    /// How often the kubelet has started it again.
    pub restarts: u32,
}

/// The links under `root`, by the container's id.
pub(super) fn links(root: &Path) -> HashMap<String, Link> {
    let Ok(entries) = fs::read_dir(root.join("var/log/containers")) else { return HashMap::new() };
    let link = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let (_, id) = name.to_str()?.strip_suffix(".log")?.rsplit_once('-')?;
        let target = fs::read_link(entry.path()).ok()?;
        is_id(id).then_some(())?;
        Some((id.to_owned(), told(&target)?))
    };
    entries.flatten().take(MAX_LINKS).filter_map(link).collect()
}

fn told(target: &Path) -> Option<Link> {
    let mut parts = target.iter().rev().map(|part| part.to_str());
    let (file, container, pod) = (parts.next()??, parts.next()??, parts.next()??);
    let mut words = pod.splitn(3, '_');
    let (namespace, name, uid) = (words.next()?, words.next()?, words.next()?);
    Some(Link {
        pod: Pod { uid: uid.to_owned(), name: Some(name.to_owned()), namespace: Some(namespace.to_owned()) },
        container: container.to_owned(),
        restarts: file.strip_suffix(".log")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_pod_name_and_restarts_and_another_says_nothing() {
        let link = told(Path::new("/var/log/pods/shop_cart-0_0c9d3d1e/web/12.log")).unwrap();
        assert_eq!((link.container.as_str(), link.restarts), ("web", 12));
        assert_eq!(
            link.pod,
            Pod { uid: "0c9d3d1e".into(), name: Some("cart-0".into()), namespace: Some("shop".into()) }
        );
        for other in
            ["/var/lib/docker/containers/ab/ab-json.log", "/var/log/pods/shop_cart/web/0.log", "/", ""]
        {
            assert_eq!(told(Path::new(other)), None, "{other}");
        }
    }
}

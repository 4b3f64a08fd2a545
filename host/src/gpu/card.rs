//! Which GPU is which card. A card is known again by its UUID, else by its PCI address, never by its
//! index: the indices of the others move when a GPU dies.

use aio_protocol::inventory::Gpu;

/// Whether it has said which card it is.
pub(super) fn is_named(gpu: &Gpu) -> bool {
    gpu.uuid.is_some() || gpu.pci_bus_id.is_some()
}

/// Whether they are the very same card. Two that have said nothing are the same in the same place.
pub fn is_same(one: &Gpu, other: &Gpu) -> bool {
    match ((&one.uuid, &other.uuid), (&one.pci_bus_id, &other.pci_bus_id)) {
        ((Some(one), Some(other)), _) | (_, (Some(one), Some(other))) => one == other,
        ((None, None), (None, None)) => one.device_id == other.device_id,
        _ => false,
    }
}

/// Gives GPUs that cannot say which card they are the names of those that are not among the others,
/// where there are as many of both: the driver lists GPUs in the order of their PCI addresses.
pub fn name_the_silent(gpus: &mut [Gpu], known: &[Gpu]) {
    let is_absent = |known: &&Gpu| is_named(known) && !gpus.iter().any(|gpu| is_same(gpu, known));
    let mut absent: Vec<_> = known.iter().filter(is_absent).cloned().collect();
    absent.sort_by(|one, other| one.pci_bus_id.cmp(&other.pci_bus_id));
    let silent: Vec<_> = gpus.iter_mut().filter(|gpu| !is_named(gpu)).collect();
    if silent.len() == absent.len() {
        for (gpu, known) in silent.into_iter().zip(absent) {
            *gpu = Gpu { device_id: gpu.device_id.clone(), ..known };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(index: usize, name: Option<&str>) -> Gpu {
        let uuid = name.map(str::to_owned);
        Gpu { device_id: index.to_string(), pci_bus_id: uuid.clone(), uuid, ..Gpu::default() }
    }

    fn named(now: &[Option<&str>], before: &[&str]) -> Vec<Option<String>> {
        let known: Vec<_> = before.iter().enumerate().map(|(index, name)| gpu(index, Some(name))).collect();
        let mut gpus: Vec<_> = now.iter().enumerate().map(|(index, name)| gpu(index, *name)).collect();
        name_the_silent(&mut gpus, &known);
        gpus.into_iter().map(|gpu| gpu.uuid).collect()
    }

    #[test]
    fn a_silent_gpu_is_who_is_missing_among_the_others_whatever_its_index() {
        let own = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
        assert_eq!(named(&[Some("a"), None, Some("c")], &["a", "b", "c"]), own(&["a", "b", "c"]));
        assert_eq!(named(&[None, Some("b"), None], &["a", "b", "c"]), own(&["a", "b", "c"]));
        // Another died and left the list, so that nobody can say which of the two is here.
        assert_eq!(named(&[None, Some("c")], &["a", "b", "c"]), [None, Some("c".to_owned())]);
        assert_eq!(named(&[None, None], &["a"]), [None, None]);
    }

    #[test]
    fn the_same_index_is_not_the_same_card() {
        assert!(!is_same(&gpu(0, Some("a")), &gpu(0, Some("b"))));
        assert!(!is_same(&gpu(0, Some("a")), &gpu(0, None)));
        assert!(is_same(&gpu(0, Some("a")), &gpu(1, Some("a"))));
        let unseen = Gpu { uuid: None, ..gpu(1, Some("a")) };
        assert!(is_same(&gpu(0, Some("a")), &unseen), "by the PCI address");
    }
}

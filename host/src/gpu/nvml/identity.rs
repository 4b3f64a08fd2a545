//! Who a GPU is and what it can do: what changes only when somebody changes the machine.

use aio_protocol::inventory::{Gpu, Mig, MigInstance, PcieLink};
use nvml_wrapper::Device;

use crate::gpu::is_same;

/// Places for instances that are looked at; no GPU has more than 8 so far.
const MAX_INSTANCES: u32 = 64;

/// What a GPU is called until its driver has named it.
const UNNAMED: &str = "NVIDIA GPU";

/// A GPU of which nothing but its index is known.
pub(super) fn unnamed(device_id: String) -> Gpu {
    Gpu { device_id, model: UNNAMED.to_owned(), ..Gpu::default() }
}

/// Who the device says it is, completed by what was known of this very card.
pub(super) fn identity(device: &Device<'_>, device_id: String, known: &[Gpu]) -> Gpu {
    let said = Gpu {
        uuid: device.uuid().ok(),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id),
        ..unnamed(device_id.clone())
    };
    let known = known.iter().find(|known| is_same(known, &said)).cloned().unwrap_or_else(|| said.clone());
    Gpu {
        device_id,
        uuid: said.uuid.or(known.uuid),
        model: device.name().unwrap_or(known.model),
        memory_total: device.memory_info().ok().map(|memory| memory.total).or(known.memory_total),
        pci_bus_id: said.pci_bus_id.or(known.pci_bus_id),
        serial: device.serial().ok().or(known.serial),
        vbios: device.vbios_version().ok().or(known.vbios),
        mig: mig(device).or(known.mig),
        ecc: device.is_ecc_enabled().ok().map(|mode| mode.currently_enabled).or(known.ecc),
        persistence: device.is_in_persistent_mode().ok().or(known.persistence),
        pcie: best_link(device).or(known.pcie),
        nvlinks: known.nvlinks,
    }
}

fn best_link(device: &Device<'_>) -> Option<PcieLink> {
    Some(PcieLink { generation: device.max_pcie_link_gen().ok()?, width: device.max_pcie_link_width().ok()? })
}

fn mig(device: &Device<'_>) -> Option<Mig> {
    let enabled = device.mig_mode().ok()?.current != 0;
    let places = if enabled { device.mig_device_count().unwrap_or_default().min(MAX_INSTANCES) } else { 0 };
    let instances = (0..places).filter_map(|place| {
        // Most places are empty.
        let instance = device.mig_device_by_index(place).ok()?;
        let uuid = instance.uuid().ok()?;
        Some(MigInstance { uuid, memory_total: instance.memory_info().ok().map(|memory| memory.total) })
    });
    Some(Mig { enabled, instances: instances.collect() })
}

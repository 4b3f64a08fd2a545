//! Who a GPU is and what it can do: what changes only when somebody changes the machine.

use aio_protocol::inventory::{Gpu, Mig, MigInstance, PcieLink};
use nvml_wrapper::Device;

/// Who the device says it is, completed by what was known.
pub(super) fn identity(device: &Device<'_>, known: Gpu) -> Gpu {
    Gpu {
        device_id: known.device_id,
        uuid: device.uuid().ok().or(known.uuid),
        model: device.name().unwrap_or(known.model),
        memory_total: device.memory_info().ok().map(|memory| memory.total).or(known.memory_total),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id).or(known.pci_bus_id),
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
    let places = if enabled { device.mig_device_count().unwrap_or_default() } else { 0 };
    let instances = (0..places).filter_map(|place| {
        // Most places are empty.
        let instance = device.mig_device_by_index(place).ok()?;
        let uuid = instance.uuid().ok()?;
        Some(MigInstance { uuid, memory_total: instance.memory_info().ok().map(|memory| memory.total) })
    });
    Some(Mig { enabled, instances: instances.collect() })
}

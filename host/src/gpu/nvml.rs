//! NVIDIA's GPUs, through the library that comes with their driver. It is loaded by name at run time, so that one binary runs with
//! and without it, and a driver that appears later is seen. Sets no deadline: a call may hang in the driver for ever.

use std::path::PathBuf;

use aio_protocol::{
    inventory::{Gpu, GpuDriver, GpuDriverState},
    telemetry::{GpuActivity, GpuStatus, Health},
};
use nvml_wrapper::{
    Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor,
    enum_wrappers::device::TemperatureSensor, error::NvmlError,
};

use super::{GpuProbe, GpuReport, silent};

/// The name under which every driver since 2010 installs its library. Newer ones have no `libnvidia-ml.so` without the number.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// What a GPU is called until its driver has named it.
const UNNAMED: &str = "NVIDIA GPU";

/// A probe that asks NVML.
#[derive(Debug)]
pub struct NvmlProbe {
    library: PathBuf,
    nvml: Option<Nvml>,
    /// What is known of the GPUs, by index: a lost one can no longer say who it is.
    known: Vec<Gpu>,
    /// Probes in a row in which a GPU was lost.
    lost: u32,
}

impl Default for NvmlProbe {
    fn default() -> Self {
        Self::new(LIBRARY)
    }
}

impl NvmlProbe {
    /// A probe through this library: a path, or a name that the dynamic linker finds.
    pub fn new(library: impl Into<PathBuf>) -> Self {
        Self { library: library.into(), nvml: None, known: Vec::new(), lost: 0 }
    }

    fn ask(&mut self, nvml: &Nvml) -> Result<GpuReport, NvmlError> {
        let count = nvml.device_count()?;
        let devices: Vec<_> = (0..count).map(|index| self.ask_device(nvml, index)).collect();
        let (gpus, status): (Vec<_>, Vec<_>) = devices.into_iter().unzip();
        self.known.clone_from(&gpus);
        let driver = GpuDriver {
            state: GpuDriverState::Ok,
            reason: None,
            version: nvml.sys_driver_version().ok(),
            cuda_version: nvml.sys_cuda_driver_version().ok().map(|version| {
                format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
            }),
        };
        Ok(GpuReport { driver, gpus, status })
    }

    fn ask_device(&self, nvml: &Nvml, index: u32) -> (Gpu, GpuStatus) {
        let device_id = index.to_string();
        let known = self.known.iter().find(|gpu| gpu.device_id == device_id).cloned().unwrap_or(Gpu {
            device_id: device_id.clone(),
            uuid: None,
            model: UNNAMED.to_owned(),
            memory_total: None,
            pci_bus_id: None,
            serial: None,
        });
        match nvml.device_by_index(index) {
            Ok(device) => (identity(&device, known), reading(&device, device_id)),
            Err(_) => (known, silent(&device_id)),
        }
    }

    /// Whether to open the library anew after this report: a GPU that was reset shows itself only to a new session. Each opening
    /// may cost the other GPUs seconds, so it is tried at once, then ever more seldom, and at last every 32 probes.
    fn stale(&mut self, report: &GpuReport) -> bool {
        if report.status.iter().all(|gpu| gpu.status == GpuActivity::Active) {
            self.lost = 0;
            return false;
        }
        self.lost = self.lost.saturating_add(1);
        self.lost.is_power_of_two() || self.lost.is_multiple_of(32)
    }

    /// What it means that NVML cannot be used.
    fn unusable(&self, error: &NvmlError) -> GpuReport {
        let library = self.library.display();
        let (state, reason) = match error {
            NvmlError::LibloadingError(error) => {
                let error = error.to_string();
                // The same words about another file mean that a library is missing which this one needs.
                if error.starts_with(&format!("{library}: ")) && error.contains("No such file") {
                    (GpuDriverState::Absent, format!("no NVIDIA driver: {library} not found"))
                } else {
                    (GpuDriverState::Unknown, format!("cannot load the NVIDIA driver's library: {error}"))
                }
            }
            NvmlError::DriverNotLoaded => (
                GpuDriverState::Unknown,
                "the NVIDIA driver is installed but not loaded, or its device /dev/nvidiactl is missing"
                    .to_owned(),
            ),
            NvmlError::LibRmVersionMismatch => (
                GpuDriverState::Unknown,
                "the NVIDIA driver's library and kernel module have different versions: reboot".to_owned(),
            ),
            NvmlError::NoPermission => {
                (GpuDriverState::Unknown, "no permission to talk to the NVIDIA driver".to_owned())
            }
            error => (GpuDriverState::Unknown, format!("the NVIDIA driver failed: {error}")),
        };
        let driver = GpuDriver { state, reason: Some(reason), version: None, cuda_version: None };
        GpuReport { driver, gpus: Vec::new(), status: Vec::new() }
    }
}

impl GpuProbe for NvmlProbe {
    fn probe(&mut self) -> GpuReport {
        let session = match self.nvml.take() {
            Some(nvml) => Ok(nvml),
            None => Nvml::builder().lib_path(self.library.as_os_str()).init(),
        };
        let asked = session.and_then(|nvml| Ok((self.ask(&nvml)?, nvml)));
        match asked {
            Ok((report, nvml)) => {
                self.nvml = (!self.stale(&report)).then_some(nvml);
                report
            }
            Err(error) => self.unusable(&error),
        }
    }
}

/// Who the device says it is, completed by what was known.
fn identity(device: &Device<'_>, known: Gpu) -> Gpu {
    Gpu {
        device_id: known.device_id,
        uuid: device.uuid().ok().or(known.uuid),
        model: device.name().unwrap_or(known.model),
        memory_total: device.memory_info().ok().map(|memory| memory.total).or(known.memory_total),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id).or(known.pci_bus_id),
        serial: device.serial().ok().or(known.serial),
    }
}

/// What the device measures. It has answered if it told anything and never said that it is gone: most devices do not
/// measure everything, and a handle to a lost one can still be had.
fn reading(device: &Device<'_>, device_id: String) -> GpuStatus {
    let utilization = device.utilization_rates().map(|rates| rates.gpu);
    let memory_used = device.memory_info().map(|memory| memory.used);
    let temperature = device.temperature(TemperatureSensor::Gpu);
    let milliwatts = device.power_usage();

    let errors = [
        utilization.as_ref().err(),
        memory_used.as_ref().err(),
        temperature.as_ref().err(),
        milliwatts.as_ref().err(),
    ];
    let mute = errors.iter().all(Option::is_some);
    if mute || errors.iter().flatten().any(|error| is_gone(error)) {
        return silent(&device_id);
    }
    GpuStatus {
        device_id,
        utilization: utilization.ok(),
        memory_used: memory_used.ok(),
        temperature: temperature.ok(),
        power_draw: milliwatts.ok().map(|milliwatts| milliwatts.saturating_add(500) / 1000),
        status: GpuActivity::Active,
        health: Health::Ok,
    }
}

fn is_gone(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::Uninitialized | NvmlError::DriverNotLoaded
    )
}

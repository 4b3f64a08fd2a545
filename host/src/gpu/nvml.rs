//! NVIDIA's GPUs, through the library that comes with their driver. It is loaded by name at run
//! time, so that one binary runs with and without it, and a driver that appears later is seen. Sets
//! no deadline: a call may hang in the driver for ever.

mod events;
mod fabric;
mod fields;
mod identity;
mod reading;

use std::{path::PathBuf, time::Duration};

use aio_protocol::inventory::{Gpu, GpuDriver, GpuDriverState};
use nvml_wrapper::{Nvml, cuda_driver_version_major, cuda_driver_version_minor, error::NvmlError};

use super::{
    GpuProbe, GpuReport, Inquiries, Inquiry, Reading, Release, XidEvent, card::is_named, is_same,
    name_the_silent,
};
use events::{Events, Heard};
use fabric::FabricInfos;

/// The name under which every driver since 2010 installs its library. Newer ones have no
/// `libnvidia-ml.so` without the number.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// GPUs that are remembered, those that are gone included.
const MAX_KNOWN: usize = 64;

/// How the reason begins while the GPUs are let go of.
pub const RELEASED: &str = "released";

/// How long the thread listens for events before it looks whether anybody has asked: the longest
/// that an inquiry waits for its turn.
const LISTEN: Duration = Duration::from_secs(1);

/// No closer together than this are reports that nobody asked for, however many errors a program makes.
const CLOSEST: Duration = Duration::from_secs(1);

/// So many errors stay in the reports. A GPU that fails tells of a handful.
const KEPT_XIDS: usize = 64;

/// A probe that asks NVML.
#[derive(Debug)]
pub struct NvmlProbe {
    library: PathBuf,
    /// Where somebody may ask it to let go of the GPUs.
    release: Option<Release>,
    /// The GPUs that have said who they are: a lost one can no longer say it.
    known: Vec<Gpu>,
    /// Probes in a row in which a GPU was lost.
    lost: u32,
    xids: Vec<XidEvent>,
    heard: u64,
}

impl Default for NvmlProbe {
    fn default() -> Self {
        Self::new(LIBRARY)
    }
}

impl NvmlProbe {
    /// A probe through this library: a path, or a name that the dynamic linker finds.
    pub fn new(library: impl Into<PathBuf>) -> Self {
        Self { library: library.into(), release: None, known: vec![], lost: 0, xids: vec![], heard: 0 }
    }

    /// The same, which lets go of the GPUs as long as somebody asks for it there.
    #[must_use]
    pub fn releasable(self, release: Release) -> Self {
        Self { release: Some(release), ..self }
    }

    /// What is told while the GPUs are let go of, because somebody asks for it.
    fn released(&self) -> Option<GpuReport> {
        let until = self.release.as_ref()?.until()?;
        let reason = format!("{RELEASED} until {until}, as an administrator asked");
        let driver = GpuDriver { reason: Some(reason), ..GpuDriver::default() };
        Some(GpuReport { driver, gpus: vec![], readings: vec![], xids: self.xids.clone() })
    }

    /// Answers inquiries with one opened library, beginning with the one that is open, until the
    /// library has to be closed.
    fn session(&mut self, nvml: &Nvml, inquiries: &mut Inquiries) -> After {
        let events = Events::subscribe(nvml);
        let driver = driver_of(nvml);
        let fabric = FabricInfos::open(&self.library);
        let mut turn = Turn::Asked;
        loop {
            if self.released().is_some() {
                return After::LetGo;
            }
            let asked = match turn {
                Turn::Ended => return After::End,
                Turn::Nothing => {
                    turn = Self::wait(events.as_ref(), inquiries);
                    continue;
                }
                Turn::Asked => true,
                Turn::Heard(heard) => {
                    self.keep(heard);
                    false
                }
            };
            let (report, usable) = match self.ask(nvml, &driver, fabric.as_ref()) {
                Ok(report) => {
                    let stale = self.stale(&report);
                    (report, !stale)
                }
                Err(error) => (self.unusable(&error), false),
            };
            if asked {
                inquiries.answer(report);
            } else {
                inquiries.tell(report);
            }
            if !usable {
                return After::OpenAnew;
            }
            // What could not wait has been told; more of the same can, a moment.
            turn = if asked { Turn::Nothing } else { inquiries.next(Some(CLOSEST)).into() };
        }
    }

    /// Waits for an inquiry or an event, whichever comes first.
    fn wait(events: Option<&Events<'_>>, inquiries: &Inquiries) -> Turn {
        let Some(events) = events else {
            return inquiries.next(None).into();
        };
        match inquiries.next(Some(Duration::ZERO)).into() {
            Turn::Nothing => match events.listen(LISTEN) {
                heard if heard.is_empty() => Turn::Nothing,
                heard => Turn::Heard(heard),
            },
            turn => turn,
        }
    }

    fn keep(&mut self, heard: Vec<Heard>) {
        for Heard { uuid, code, at } in heard {
            self.heard = self.heard.saturating_add(1);
            self.xids.push(XidEvent { sequence: self.heard, at, uuid, code });
        }
        let surplus = self.xids.len().saturating_sub(KEPT_XIDS);
        self.xids.drain(..surplus);
    }

    fn ask(
        &mut self,
        nvml: &Nvml,
        driver: &GpuDriver,
        fabric: Option<&FabricInfos>,
    ) -> Result<GpuReport, NvmlError> {
        let count = nvml.device_count()?;
        let devices: Vec<_> = (0..count).map(|index| self.ask_device(nvml, fabric, index)).collect();
        let (mut gpus, readings): (Vec<_>, Vec<_>) = devices.into_iter().unzip();
        name_the_silent(&mut gpus, &self.known);
        // One that is gone from the list may come back.
        let gone = self.known.iter().filter(|known| !gpus.iter().any(|gpu| is_same(gpu, known)));
        let gone: Vec<_> = gone.take(MAX_KNOWN.saturating_sub(gpus.len())).cloned().collect();
        self.known = gpus.iter().filter(|gpu| is_named(gpu)).cloned().chain(gone).collect();
        Ok(GpuReport { driver: driver.clone(), gpus, readings, xids: self.xids.clone() })
    }

    fn ask_device(&self, nvml: &Nvml, fabric: Option<&FabricInfos>, index: u32) -> (Gpu, Reading) {
        let device_id = index.to_string();
        match nvml.device_by_index(index) {
            Ok(device) => {
                let fabric = fabric.and_then(|fabric| fabric.of(&device));
                let reading = Reading { fabric, ..reading::reading(&device, device_id.clone()) };
                (identity::identity(&device, device_id, &self.known), reading)
            }
            Err(error) => (identity::unnamed(device_id.clone()), reading::unreachable(&error, device_id)),
        }
    }

    /// Whether to open the library anew after this report: a GPU that was reset shows itself only
    /// to a new session. Each opening may cost the other GPUs seconds, so it is tried at once, then
    /// ever more seldom, and at last every 32 probes.
    fn stale(&mut self, report: &GpuReport) -> bool {
        if report.readings.iter().all(Reading::answers) {
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
            NvmlError::NoPermission => (
                GpuDriverState::Unknown,
                "no permission to talk to the NVIDIA driver: look at the mode of /dev/nvidiactl".to_owned(),
            ),
            NvmlError::OperatingSystem => (
                GpuDriverState::Unknown,
                "the operating system keeps the worker from /dev/nvidiactl: look at DeviceAllow= of its unit"
                    .to_owned(),
            ),
            NvmlError::InsufficientPower => (
                GpuDriverState::Unknown,
                "a GPU's external power cables are not attached properly".to_owned(),
            ),
            NvmlError::IrqIssue => (
                GpuDriverState::Unknown,
                "the kernel found a problem with a GPU's interrupts: reboot, and look at dmesg".to_owned(),
            ),
            NvmlError::Unknown => (
                GpuDriverState::Unknown,
                "the NVIDIA driver failed with an error of its own: look at dmesg for NVRM".to_owned(),
            ),
            error => (GpuDriverState::Unknown, format!("the NVIDIA driver failed: {error}")),
        };
        let driver = GpuDriver { state, reason: Some(reason), version: None, cuda_version: None };
        GpuReport { driver, gpus: vec![], readings: vec![], xids: self.xids.clone() }
    }
}

/// The driver, which stays the same while its library is open. For CUDA's version the library loads
/// CUDA's own, which is too much to be done at every probe.
fn driver_of(nvml: &Nvml) -> GpuDriver {
    GpuDriver {
        state: GpuDriverState::Ok,
        reason: None,
        version: nvml.sys_driver_version().ok(),
        cuda_version: nvml.sys_cuda_driver_version().ok().map(|version| {
            format!("{}.{}", cuda_driver_version_major(version), cuda_driver_version_minor(version))
        }),
    }
}

/// What to do behind a session.
enum After {
    /// Open the library anew, for the next inquiry.
    OpenAnew,
    /// Leave the GPUs alone, as somebody asks.
    LetGo,
    /// Nothing: there are no more inquiries.
    End,
}

/// What the thread has to do next.
enum Turn {
    Asked,
    Heard(Vec<Heard>),
    Nothing,
    Ended,
}

impl From<Inquiry> for Turn {
    fn from(inquiry: Inquiry) -> Self {
        match inquiry {
            Inquiry::Asked => Self::Asked,
            Inquiry::None => Self::Nothing,
            Inquiry::Ended => Self::Ended,
        }
    }
}

impl GpuProbe for NvmlProbe {
    fn serve(mut self, inquiries: &mut Inquiries) {
        while matches!(inquiries.next(None), Inquiry::Asked) {
            if let Some(report) = self.released() {
                inquiries.answer(report);
                continue;
            }
            let after = match Nvml::builder().lib_path(self.library.as_os_str()).init() {
                Ok(nvml) => self.session(&nvml, inquiries),
                Err(error) => {
                    inquiries.answer(self.unusable(&error));
                    continue;
                }
            };
            match after {
                After::OpenAnew => {}
                // It is told when the library is closed, so that whoever waits for it can rely on it.
                After::LetGo => inquiries
                    .answer(self.released().unwrap_or_else(|| self.unusable(&NvmlError::Uninitialized))),
                After::End => return,
            }
        }
    }
}

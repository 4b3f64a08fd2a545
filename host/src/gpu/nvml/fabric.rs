//! How a GPU stands in the fabric that connects GPUs through switches (HGX and DGX machines): until
//! `nvidia-fabricmanager` has connected it, no program can use it. The NVML library that the rest
//! is asked through knows no such question, so this one call is made by hand.

use std::path::Path;

use libloading::{Library, Symbol};
use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlGpuFabricInfo_t, nvmlReturn_t};

use crate::gpu::Fabric;

type GetFabricInfo = unsafe extern "C" fn(nvmlDevice_t, *mut nvmlGpuFabricInfo_t) -> nvmlReturn_t;

/// The library once more, for its one function.
pub(super) struct FabricInfos(Library);

impl FabricInfos {
    /// Opens the library, which is in use already.
    pub(super) fn open(library: &Path) -> Option<Self> {
        #[expect(
            unsafe_code,
            reason = "the library has been loaded before: nothing runs that did not run then"
        )]
        let library = unsafe { Library::new(library) };
        library.ok().map(Self)
    }

    /// How the GPU stands; nothing where there is no fabric, or where the driver is older than 535.
    pub(super) fn of(&self, device: &Device<'_>) -> Option<Fabric> {
        let mut info = nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
        #[expect(
            unsafe_code,
            reason = "signature and structure are those of nvml.h since the function exists, and the handle is of the same library"
        )]
        let answer = unsafe {
            let ask: Symbol<'_, GetFabricInfo> = self.0.get(b"nvmlDeviceGetGpuFabricInfo\0").ok()?;
            ask(device.handle(), &raw mut info)
        };
        if answer != 0 {
            return None;
        }
        // NVML_GPU_FABRIC_STATE_* of nvml.h; 0 is a GPU without a fabric.
        match (info.state, info.status) {
            (1, _) => Some(Fabric::NotStarted),
            (2, _) => Some(Fabric::InProgress),
            (3, 0) => Some(Fabric::Connected),
            (3, status) => Some(Fabric::Failed(status)),
            _ => None,
        }
    }
}

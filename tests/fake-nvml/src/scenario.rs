//! The scenario file: where it is, what it says, and when it is read again. Knows nothing of C.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CStr, OsStr, OsString, c_char, c_int, c_void},
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde::Deserialize;

/// NVML's answers, with the numbers of `nvml.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u32)]
pub(crate) enum Code {
    Success = 0,
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NoPermission = 4,
    NotFound = 6,
    InsufficientSize = 7,
    InsufficientPower = 8,
    DriverNotLoaded = 9,
    Timeout = 10,
    IrqIssue = 11,
    LibraryNotFound = 12,
    FunctionNotFound = 13,
    CorruptedInforom = 14,
    GpuIsLost = 15,
    ResetRequired = 16,
    OperatingSystem = 17,
    LibRmVersionMismatch = 18,
    InUse = 19,
    Memory = 20,
    NoData = 21,
    ArgumentVersionMismatch = 25,
    NotReady = 27,
    GpuNotFound = 28,
    Unknown = 999,
}

/// A whole scenario.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Scenario {
    pub(crate) driver_version: Option<String>,
    pub(crate) cuda_version: Option<String>,
    pub(crate) init: Option<Code>,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) xids: Vec<Xid>,
    hang: Hang,
    faults: BTreeMap<String, Code>,
}

/// One GPU.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Gpu {
    pub(crate) name: Option<String>,
    pub(crate) uuid: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) pci_bus_id: Option<String>,
    pub(crate) utilization: Option<u32>,
    pub(crate) temperature: Option<u32>,
    pub(crate) power: Option<u32>,
    pub(crate) power_limit: Option<u32>,
    pub(crate) slowdown_temperature: Option<u32>,
    pub(crate) memory_temperature: Option<u32>,
    pub(crate) vbios: Option<String>,
    pub(crate) mig: Option<Vec<MigInstance>>,
    pub(crate) ecc: Option<bool>,
    pub(crate) persistence: Option<bool>,
    pub(crate) pcie: Option<Link>,
    pub(crate) max_pcie: Option<Link>,
    pub(crate) nvlinks: Option<Vec<bool>>,
    pub(crate) clock_sm: Option<u32>,
    pub(crate) clock_memory: Option<u32>,
    pub(crate) throttle_reasons: Option<u64>,
    pub(crate) ecc_errors: Option<EccErrors>,
    pub(crate) remapped_rows: Option<RemappedRows>,
    pub(crate) retired_pages: Option<RetiredPages>,
    pub(crate) thermal_slowdown: Option<u64>,
    pub(crate) power_slowdown: Option<u64>,
    pub(crate) energy: Option<u64>,
    pub(crate) recovery_action: Option<u32>,
    pub(crate) fabric: Option<Fabric>,
    pub(crate) processes: Option<Vec<Process>>,
    pub(crate) events: bool,
    memory_total: Option<u64>,
    memory_used: Option<u64>,
    fault: Option<Code>,
    hang: Hang,
    faults: BTreeMap<String, Code>,
}

/// An error that the driver tells of: each is told once to whoever listens when it appears in the list.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Xid {
    pub(crate) gpu: usize,
    pub(crate) code: u64,
}

/// Declares parts of a GPU.
macro_rules! parts {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {$(
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }
    )*};
}

parts! {
    MigInstance { uuid: String, memory_total: u64, }
    Link { generation: u32, width: u32, }
    EccErrors {
        volatile_corrected: u64,
        volatile_uncorrected: u64,
        aggregate_corrected: u64,
        aggregate_uncorrected: u64,
    }
    RemappedRows { corrected: u32, uncorrected: u32, pending: bool, failed: bool, }
    RetiredPages { corrected: u32, uncorrected: u32, pending: bool, }
    Fabric { state: u8, status: u32, }
    Process { pid: u32, memory_used: u64, }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Hang {
    Every(bool),
    Functions(Vec<String>),
}

impl Default for Hang {
    fn default() -> Self {
        Self::Every(false)
    }
}

impl Hang {
    fn has(&self, function: &str) -> bool {
        match self {
            Self::Every(every) => *every,
            Self::Functions(functions) => functions.iter().any(|name| name == function),
        }
    }
}

impl Scenario {
    pub(crate) fn fault(&self, function: &str) -> Result<(), Code> {
        self.faults.get(function).map_or(Ok(()), |code| Err(*code))
    }

    /// `12.4` is 12040.
    pub(crate) fn cuda_version_number(&self) -> Option<c_int> {
        let (major, minor) = self.cuda_version.as_deref()?.split_once('.')?;
        Some(major.parse::<c_int>().ok()? * 1000 + minor.parse::<c_int>().ok()? * 10)
    }

    fn hangs(&self, function: &str, gpu: Option<usize>) -> bool {
        let gpu = gpu.and_then(|index| self.gpus.get(index));
        self.hang.has(function) || gpu.is_some_and(|gpu| gpu.hang.has(function))
    }
}

impl Gpu {
    pub(crate) fn fault(&self, function: &str) -> Result<(), Code> {
        self.fault.or(self.faults.get(function).copied()).map_or(Ok(()), Err)
    }

    /// A part of it.
    pub(crate) fn instance(&self, index: usize) -> Result<&MigInstance, Code> {
        self.mig.as_ref().and_then(|instances| instances.get(index)).ok_or(Code::NotFound)
    }

    /// Total and used.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        Some((self.memory_total?, self.memory_used.unwrap_or_default()))
    }
}

/// What tells one version of the file from another.
type Version = (u64, u64, i64, i64);

static CURRENT: Mutex<Option<(Version, Arc<Scenario>)>> = Mutex::new(None);

/// The scenario as the file is now, once it does not have this function hang, for this GPU or for all.
pub(crate) fn current_unless_hung(function: &str, gpu: Option<usize>) -> Arc<Scenario> {
    loop {
        let scenario = current();
        if !scenario.hangs(function, gpu) {
            return scenario;
        }
        // A hung driver call holds its thread and does not spin.
        thread::sleep(Duration::from_millis(10));
    }
}

/// The scenario as the file is now.
pub(crate) fn current() -> Arc<Scenario> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    match (read(current.as_ref().map(|(version, _)| *version)), &*current) {
        (Ok(None), Some((_, scenario))) => scenario.clone(),
        (Ok(Some((version, scenario))), _) => {
            let scenario = Arc::new(scenario);
            *current = Some((version, scenario.clone()));
            scenario
        }
        // A scenario that is half written is not yet one.
        (Err(_), Some((_, scenario))) => scenario.clone(),
        (error, None) => {
            eprintln!("fake-nvml: no scenario: {:?}", error.err());
            Arc::new(Scenario { init: Some(Code::DriverNotLoaded), ..Scenario::default() })
        }
    }
}

/// The scenario, unless the file is still the `known` version.
fn read(known: Option<Version>) -> io::Result<Option<(Version, Scenario)>> {
    let (path, metadata) = found()?;
    let version = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    if known == Some(version) {
        return Ok(None);
    }
    let scenario = serde_json::from_slice(&fs::read(&path)?)?;
    Ok(Some((version, scenario)))
}

/// Where the scenario is, and what the file is now. Asked at every call of the library, which is
/// why the library's own path is asked for once.
fn found() -> io::Result<(PathBuf, Metadata)> {
    static BESIDE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let mut library = own_path()?;
        library.push(".json");
        Some(PathBuf::from(library))
    });
    if let Some(beside) = &*BESIDE
        && let Ok(metadata) = fs::metadata(beside)
    {
        return Ok((beside.clone(), metadata));
    }
    let named = env::var_os("FAKE_NVML_SCENARIO")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "FAKE_NVML_SCENARIO is not set"))?;
    let path = PathBuf::from(named);
    let metadata = fs::metadata(&path)?;
    Ok((path, metadata))
}

/// The driver's device, once for each session.
static DEVICES: Mutex<Vec<fs::File>> = Mutex::new(Vec::new());

/// Opens the driver's device, if there is one.
pub(crate) fn open_device() {
    let Some(mut path) = own_path() else { return };
    path.push(".device");
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    devices.extend(fs::File::open(path));
}

/// Closes the driver's device.
pub(crate) fn close_device() {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner).pop();
}

/// `Dl_info` of `dlfcn.h`.
#[repr(C)]
struct SymbolInfo {
    file_name: *const c_char,
    base: *mut c_void,
    symbol_name: *const c_char,
    symbol: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut SymbolInfo) -> c_int;
}

/// The path under which this library was loaded.
fn own_path() -> Option<OsString> {
    let mut info = SymbolInfo {
        file_name: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol_name: std::ptr::null(),
        symbol: std::ptr::null_mut(),
    };
    // SAFETY: the structure is the one that dladdr(3) fills, and the address is of this very library.
    let found = unsafe { dladdr((&raw const CURRENT).cast(), &raw mut info) };
    if found == 0 || info.file_name.is_null() {
        return None;
    }
    // SAFETY: dladdr(3) gives a text that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.file_name) };
    Some(OsStr::from_bytes(name.to_bytes()).to_owned())
}

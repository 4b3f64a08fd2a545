//! What a `node.register` says, in either of AIWM's forms (pure). It is kept as it came. A shape that is
//! wrong is kept silently, as AIWM does; a number that is none refuses the whole message.

use aio_protocol::{event::GpuDevice, text};
use serde_json::{Map, Value};

/// A register that is larger than this is not kept.
const MAX_BYTES: usize = 256 * 1024;

/// What an event may carry of GPUs.
const MAX_GPUS: usize = 64;
const MAX_MODEL_BYTES: usize = 128;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// The numbers of the flat form.
const FLAT_NUMBERS: [&str; 4] = ["cpuCores", "ramTotal", "diskTotal", "uptimeSeconds"];

/// The numbers of the full form, by their place below `systemInfo`.
const FULL_NUMBERS: [&str; 9] = [
    "/architecture/bits",
    "/hardware/cpu/sockets",
    "/hardware/cpu/coresPerSocket",
    "/hardware/cpu/threadsPerCore",
    "/hardware/cpu/totalCores",
    "/hardware/cpu/frequency",
    "/hardware/cpu/cacheSize",
    "/hardware/memory/total",
    "/hardware/disk/total",
];

/// What is kept of a register.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Registered {
    pub system_info: Value,
    pub daemon_version: Option<String>,
    pub gpu_devices: Vec<GpuDevice>,
}

/// Reads `data`, or says why it cannot be kept.
pub(crate) fn read(data: &Map<String, Value>) -> Result<Registered, String> {
    if serde_json::to_string(data).map_or(0, |text| text.len()) > MAX_BYTES {
        return Err(format!("the register has more than {MAX_BYTES} bytes"));
    }
    match data.get("systemInfo") {
        Some(info) => full(info),
        None => flat(data),
    }
}

fn full(info: &Value) -> Result<Registered, String> {
    let numbers = FULL_NUMBERS.iter().map(|place| (*place, info.pointer(place)));
    refuse_words(numbers.map(|(place, value)| (place.trim_start_matches('/').replace('/', "."), value)))?;
    let gpus = info.pointer("/hardware/gpu");
    // What stands beside `systemInfo` is dropped, the daemon's version too.
    Ok(Registered { system_info: info.clone(), daemon_version: None, gpu_devices: gpu_devices(gpus, 1.0) })
}

fn flat(data: &Map<String, Value>) -> Result<Registered, String> {
    refuse_words(FLAT_NUMBERS.iter().map(|name| ((*name).to_owned(), data.get(*name))))?;
    let text = |name: &str| data.get(name).cloned().unwrap_or(Value::Null);
    let number = |name: &str| data.get(name).and_then(as_number);
    let bytes = |name: &str| number(name).map(|megabytes| megabytes * MEBIBYTE);
    let os = |name: &str| data.get("os").and_then(|os| os.get(name)).cloned().unwrap_or(Value::Null);
    let gpus = data.get("gpuDevices");
    let system_info = serde_json::json!({
        "os": { "name": os("distro"), "version": os("version"), "kernel": os("kernel"), "platform": os("platform") },
        "architecture": { "cpu": os("arch") },
        "hardware": {
            "cpu": { "model": text("cpuModel"), "totalCores": number("cpuCores") },
            "memory": { "total": bytes("ramTotal") },
            "disk": { "total": bytes("diskTotal") },
            "network": { "publicIp": text("publicIpAddress"), "clusterIp": text("ipAddress") },
            "gpu": gpus.cloned().unwrap_or(Value::Null),
        },
        "containerRuntime": text("containerRuntime"),
    });
    let version = data.get("daemonVersion").and_then(Value::as_str).map(|version| text::clean(version, 64));
    Ok(Registered { system_info, daemon_version: version, gpu_devices: gpu_devices(gpus, MEBIBYTE) })
}

fn refuse_words<'a>(numbers: impl Iterator<Item = (String, Option<&'a Value>)>) -> Result<(), String> {
    for (name, value) in numbers {
        if let Some(value) = value.filter(|value| !value.is_null())
            && as_number(value).is_none()
        {
            return Err(format!("Cast to Number failed for {name}"));
        }
    }
    Ok(())
}

/// What a database of documents takes for a number.
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        _ => None,
    }
}

fn gpu_devices(gpus: Option<&Value>, unit: f64) -> Vec<GpuDevice> {
    let gpus = gpus.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let device = |gpu: &Value| {
        let model = text::clean(gpu.get("model")?.as_str()?, MAX_MODEL_BYTES);
        let total = gpu.get("memoryTotal").and_then(as_number).map(|amount| amount * unit);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
        let memory_total = total.map(|bytes| bytes as u64);
        Some(GpuDevice { model, memory_total })
    };
    gpus.iter().filter_map(device).take(MAX_GPUS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(data: Value) -> Result<Registered, String> {
        read(data.as_object().unwrap())
    }

    #[test]
    fn the_full_form_is_kept_whole_and_what_stands_beside_it_is_dropped() {
        let info = json!({"os": {"name": "Ubuntu"}, "more": [1], "hardware": {"memory": {"total": 1},
            "gpu": [{"deviceId": "0", "model": "L4", "memoryTotal": 24_000_000_000_u64}]}});
        let registered = of(json!({"systemInfo": info, "daemonVersion": "1.0.0"})).unwrap();
        assert_eq!((registered.system_info, registered.daemon_version), (info, None));
        let gpu = GpuDevice { model: "L4".into(), memory_total: Some(24_000_000_000) };
        assert_eq!(registered.gpu_devices, [gpu]);
    }

    #[test]
    fn the_flat_form_has_megabytes_and_alone_has_a_version() {
        let registered =
            of(json!({"name": "gpu-1", "hostname": "h", "os": {"distro": "Ubuntu"}, "cpuCores": 8,
            "ramTotal": "1024", "daemonVersion": "1.0.0", "gpuDevices": [{"model": "L4", "memoryTotal": 2}]}))
            .unwrap();
        assert_eq!(registered.daemon_version.as_deref(), Some("1.0.0"));
        assert_eq!(registered.system_info.pointer("/hardware/memory/total"), Some(&json!(1_073_741_824.0)));
        assert_eq!(registered.gpu_devices.first().unwrap().memory_total, Some(2 * 1024 * 1024));
        assert!(!registered.system_info.to_string().contains("hostname"), "it is lost, as AIWM loses it");
    }

    #[test]
    fn a_wrong_shape_is_kept_and_a_number_that_is_none_refuses_all() {
        assert!(
            of(json!({"systemInfo": {"architecture": "x86_64", "hardware": {"disk": [], "network": []}}}))
                .is_ok()
        );
        assert!(of(json!({"systemInfo": "nothing"})).is_ok());
        for wrong in [
            json!({"systemInfo": {"hardware": {"memory": {"total": "much"}}}}),
            json!({"systemInfo": {"hardware": {"cpu": {"sockets": {}}}}}),
            json!({"cpuCores": "eight"}),
            json!({"ramTotal": []}),
        ] {
            assert!(of(wrong.clone()).unwrap_err().contains("Cast to Number"), "{wrong}");
        }
        assert!(of(json!({"systemInfo": "x".repeat(MAX_BYTES)})).is_err());
    }

    proptest! {
        #[test]
        fn no_number_panics(total in any::<f64>(), text in ".{0,20}") {
            let gpus = json!([{"model": text, "memoryTotal": total}, {"model": 7}, text]);
            let _ = of(json!({"gpuDevices": gpus, "ramTotal": total}));
            let _ = of(json!({"systemInfo": {"hardware": {"gpu": gpus}}}));
        }
    }
}

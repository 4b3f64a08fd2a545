//! What a worker of AIWM's dialect measures, in our words. Its `telemetry.metrics` says less: nothing of the
//! uptime, which its heartbeats tell, and nothing of a GPU's health, which is therefore unknown.

use aio_protocol::{
    aiwm::telemetry::{GpuLoad, Metrics},
    ids::NodeId,
    left_out::LeftOut,
    telemetry::{GpuActivity, GpuDetail, GpuStatus, Health, HostUsage, NetworkTraffic},
    wire,
};
use serde_json::{Map, Value};

/// Bytes of a MB, as AIWM's numbers in MB have it.
const MB: u64 = 1024 * 1024;

/// The data of a `telemetry.metrics`; nothing of a message that does not say what its machine does.
pub(super) fn measured(
    node: &NodeId,
    data: Map<String, Value>,
    uptime_seconds: u64,
) -> Option<wire::Metrics> {
    let told: Metrics = serde_json::from_value(Value::Object(data)).ok()?;
    let Metrics { cpu, memory, network, gpu_devices, .. } = told;
    if memory.total == 0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "percentages")]
    let (cpu_usage, ram_usage) = (
        cpu.usage.clamp(0.0, 100.0) as f32,
        (memory.used as f64 / memory.total as f64 * 100.0).clamp(0.0, 100.0) as f32,
    );
    Some(wire::Metrics {
        node_id: node.clone(),
        host: HostUsage { cpu_usage, ram_usage, uptime_seconds },
        memory_used: memory.used.saturating_mul(MB),
        memory_cached: None,
        disk: Vec::new(),
        disk_traffic: None,
        network: NetworkTraffic { received_bytes: network.rx_bytes, sent_bytes: network.tx_bytes },
        load_average: None,
        temperature: Vec::new(),
        gpu: gpu_devices.into_iter().map(gpu).collect(),
        containers: None,
        problems: None,
        left_out: LeftOut::default(),
    })
}

fn gpu(gpu: GpuLoad) -> GpuDetail {
    GpuDetail::of(GpuStatus {
        device_id: gpu.device_id,
        utilization: gpu.utilization,
        memory_used: gpu.memory_used.map(|mb| mb.saturating_mul(MB)),
        temperature: gpu.temperature,
        power_draw: gpu.power_draw,
        status: GpuActivity::Active,
        health: Health::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(data: Value) -> Option<wire::Metrics> {
        let Value::Object(data) = data else { panic!("no object") };
        measured(&NodeId::from_bytes([1; 12]), data, 7)
    }

    #[test]
    fn megabytes_become_bytes_and_what_is_not_said_stays_unsaid() {
        let metrics = read(json!({"cpu": {"usage": 12.5}, "memory": {"total": 1000, "used": 250},
            "gpuDevices": [{"deviceId": "0", "utilization": 97, "memoryUsed": 2}]}));
        let metrics = metrics.unwrap();
        assert_eq!((metrics.host.ram_usage, metrics.memory_used), (25.0, 250 * MB));
        let gpu = &metrics.gpu[0].status;
        assert_eq!((gpu.utilization, gpu.memory_used, gpu.temperature), (Some(97), Some(2 * MB), None));
        assert_eq!(gpu.health, Health::Unknown);
        assert_eq!(read(json!({"cpu": {"usage": 1}})), None, "no machine is without memory");
    }
}

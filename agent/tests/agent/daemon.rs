//! A daemon in this process, with a machine that a test can change.

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aio_host::{
    cgroups::Cgroups,
    facts::{HostFacts, HostProbe, HostSample},
    gpu::{GpuProbe, GpuReport, GpuWatcher, Inquiries, Inquiry, Reading},
    layout::Layout,
};
use aio_protocol::{
    inventory::{Cpu, Disk, Gpu, GpuDriver, GpuDriverState, Memory, OperatingSystem},
    snapshot::WorkerSnapshot,
    telemetry::{GpuActivity, GpuDetail, GpuStatus, Health, HostUsage, NetworkTraffic},
};
use aio_worker::{
    config::{Flags, WorkerConfig},
    notify::Notifier,
    reload::Reload,
    session::machine::Timings,
    telemetry::{Probes, manager::Latest},
    update::places::Places,
    worker::Worker,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sd_notify::NotifyState;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::controller::{NODE, PATIENCE};

pub(crate) fn token(controller: &str, id: &str) -> String {
    token_with(controller, id, |_| {})
}

/// A token with other claims.
pub(crate) fn token_with(controller: &str, id: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut claims = serde_json::json!({
        "sub": NODE, "type": "node", "jti": id, "iat": 1, "exp": 4_000_000_000_i64,
        "ctl": controller, "api": "http://127.0.0.1:1",
    });
    change(&mut claims);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("signature"))
}

/// What the machine is at the moment.
pub(crate) struct Machine {
    pub(crate) gpus: Mutex<GpuReport>,
    hung: Mutex<bool>,
    freed: Condvar,
    unasked: AtomicBool,
}

impl Machine {
    /// From now on, the driver says something else; and says so by itself.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut GpuReport)) {
        change(&mut self.gpus.lock().unwrap());
        self.unasked.store(true, Ordering::SeqCst);
    }

    /// From now on, no question to the driver is answered; or all are again.
    pub(crate) fn hang(&self, hung: bool) {
        *self.hung.lock().unwrap() = hung;
        self.freed.notify_all();
    }
}

pub(crate) fn gpus(count: usize) -> GpuReport {
    GpuReport {
        driver: GpuDriver {
            state: GpuDriverState::Ok,
            reason: None,
            version: Some("550.54.15".into()),
            cuda_version: Some("12.4".into()),
        },
        gpus: (0..count)
            .map(|index| Gpu {
                device_id: index.to_string(),
                uuid: Some(format!("GPU-{index}")),
                model: "NVIDIA H100".into(),
                memory_total: Some(85_899_345_920),
                ..Gpu::default()
            })
            .collect(),
        readings: (0..count)
            .map(|index| GpuStatus {
                device_id: index.to_string(),
                utilization: Some(50),
                memory_used: Some(1 << 30),
                temperature: Some(60),
                power_draw: Some(300),
                status: GpuActivity::Active,
                health: Health::Unknown,
            })
            .map(|status| Reading::of(GpuDetail::of(status)))
            .collect(),
        xids: vec![],
    }
}

struct Shared(Arc<Machine>);

impl GpuProbe for Shared {
    fn serve(self, inquiries: &mut Inquiries) {
        loop {
            let inquiry = inquiries.next(Some(Duration::from_millis(10)));
            drop(self.0.freed.wait_while(self.0.hung.lock().unwrap(), |hung| *hung).unwrap());
            let report = self.0.gpus.lock().unwrap().clone();
            match inquiry {
                Inquiry::Asked => inquiries.answer(report),
                Inquiry::None if self.0.unasked.swap(false, Ordering::SeqCst) => inquiries.tell(report),
                Inquiry::None => {}
                Inquiry::Ended => return,
            }
        }
    }
}

struct Host;

impl HostProbe for Host {
    fn facts(&mut self) -> HostFacts {
        HostFacts {
            os: OperatingSystem {
                name: "Ubuntu".into(),
                version: "22.04".into(),
                kernel: "5.15".into(),
                hostname: "gpu-1".into(),
            },
            architecture: "x86_64".into(),
            cpu: Cpu { model: "EPYC".into(), cores: None, threads: 2, ..Cpu::default() },
            memory: Memory { total: 1 << 34 },
            disk: vec![Disk {
                mount_point: "/".into(),
                file_system: "ext4".into(),
                total: 1 << 40,
                available: 1 << 39,
                device: None,
                inodes: None,
            }],
            boot_id: "3f8f2d1c-4b5a-4c3e-9a51-0f2a7c3e9a51".into(),
            ..HostFacts::default()
        }
    }

    fn sample(&mut self) -> HostSample {
        HostSample {
            usage: HostUsage { cpu_usage: 12.5, ram_usage: 41.25, uptime_seconds: 86_400 },
            memory_used: 1 << 33,
            memory_cached: None,
            network: NetworkTraffic::default(),
            disk_traffic: None,
            load_average: [0.5, 0.25, 0.125],
            temperatures: vec![],
        }
    }
}

/// Hears what systemd would.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<String>>>, Option<Duration>);

impl Heard {
    pub(crate) fn words(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Notifier for Heard {
    fn tell(&self, state: NotifyState<'_>) {
        self.0.lock().unwrap().push(state.to_string());
    }

    fn watchdog(&self) -> Option<Duration> {
        self.1
    }
}

pub(crate) struct Daemon {
    pub(crate) machine: Arc<Machine>,
    pub(crate) heard: Heard,
    pub(crate) runtime_dir: PathBuf,
    /// What systemd says.
    pub(crate) systemd: watch::Sender<Latest>,
    reload: mpsc::Sender<()>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    folder: Arc<TempDir>,
}

/// What a daemon finds when it starts, and keeps when it ends.
pub(crate) fn folder_with(token: &str) -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), token).unwrap();
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    Arc::new(folder)
}

impl Daemon {
    pub(crate) fn start(controller: &str) -> Self {
        Self::with(controller, Timings::default(), None)
    }

    pub(crate) fn with(controller: &str, timings: Timings, watchdog: Option<Duration>) -> Self {
        Self::on(&folder_with(&token(controller, "first")), timings, watchdog)
    }

    /// On a folder that may have known a daemon before.
    pub(crate) fn on(folder: &Arc<TempDir>, timings: Timings, watchdog: Option<Duration>) -> Self {
        Self::of(folder, timings, watchdog, false)
    }

    /// On a folder that may have known a daemon before, with a driver that answers no question.
    pub(crate) fn hanging_on(folder: &Arc<TempDir>) -> Self {
        Self::of(folder, Timings::default(), None, true)
    }

    fn of(folder: &Arc<TempDir>, timings: Timings, watchdog: Option<Duration>, hung: bool) -> Self {
        aio_host::tls::install_provider();
        let at = |name: &str| folder.path().join(name);
        let runtime_dir = at("run");
        let flags = Flags {
            token_file: Some(at("token")),
            runtime_dir: Some(runtime_dir.clone()),
            state_dir: Some(at("state")),
            config: Some(at("config.toml")),
            ..Flags::default()
        };
        let machine = Arc::new(Machine {
            gpus: Mutex::new(gpus(2)),
            hung: Mutex::new(hung),
            freed: Condvar::new(),
            unasked: AtomicBool::new(false),
        });
        let heard = Heard(Arc::default(), watchdog);
        let config = WorkerConfig::load(&flags, &|_| None).unwrap();
        let (reload, asked) = mpsc::channel(1);
        let systemd = watch::Sender::new(Some(Arc::default()));
        let worker = Worker {
            timings,
            probes: Probes {
                load: Box::new(Host),
                facts: Box::new(Host),
                containers: Box::new(Cgroups::under(&at("machine"))),
                gpus: GpuWatcher::start(Shared(machine.clone())).unwrap(),
                systemd: systemd.subscribe(),
            },
            places: Places::of(Layout::under(folder.path()), &config.state_dir, &config.runtime_dir),
            config,
            notifier: Box::new(heard.clone()),
            reload: Reload::new(asked, move |config| config.load_again(&flags, &|_| None)),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { worker.run(stop).await.unwrap() }
        });
        Self { machine, heard, runtime_dir, systemd, reload, stop, task, folder: folder.clone() }
    }

    /// Where its token is.
    pub(crate) fn token_path(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Replaces the token as an admin would: in one step.
    pub(crate) fn replace_token(&self, text: &str) {
        let (fresh, token) = (self.folder.path().join("token.new"), self.folder.path().join("token"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &token).unwrap();
    }

    /// Writes another configuration, and asks for it.
    pub(crate) async fn reload(&self, config: &str) {
        std::fs::write(self.config_path(), config).unwrap();
        self.ask_to_reload().await;
    }

    pub(crate) async fn ask_to_reload(&self) {
        self.reload.send(()).await.unwrap();
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    pub(crate) fn alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits for a snapshot that is as it should be, as an installer does: line by line.
    pub(crate) async fn snapshot(&self, wanted: impl Fn(&WorkerSnapshot) -> bool) -> WorkerSnapshot {
        let mut last = None;
        let search = async {
            let path = self.runtime_dir.join("status.sock");
            let stream = loop {
                match UnixStream::connect(&path).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let mut lines = BufReader::new(stream).lines();
            while let Some(line) = lines.next_line().await.unwrap() {
                let snapshot: WorkerSnapshot = serde_json::from_str(&line).unwrap();
                if wanted(&snapshot) {
                    return snapshot;
                }
                last = Some(snapshot);
            }
            panic!("the status socket closed")
        };
        match timeout(PATIENCE, search).await {
            Ok(snapshot) => snapshot,
            Err(_) => panic!("last seen: {last:#?}"),
        }
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) {
        timeout(PATIENCE, &mut self.task).await.expect("the daemon does not end").unwrap();
    }
}

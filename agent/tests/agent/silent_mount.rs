//! A file system whose program is there and does not answer: a real FUSE mount, of which the kernel
//! gets the answer that makes it usable, and nothing more. In a mount namespace of its own, so that
//! nobody else on this machine meets it; needs root and `/dev/fuse`.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::Path,
};

use aio_host::namespace::{Place, run_inside};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use super::{
    binary::{Service, program, run},
    controller::Controller,
};

/// The source of the mount: what begins with `/dev/` counts as a disk.
const SOURCE: &str = "/dev/aio-silent";

/// A request that makes the connection usable, and the only one that is answered.
const FUSE_INIT: u32 = 26;

/// `struct fuse_out_header` and the whole `struct fuse_init_out` of protocol 7.23 and later.
const ANSWER_BYTES: usize = 16 + 64;

/// A mounted file system that never answers, for as long as it lives.
struct SilentMount {
    /// Once it is closed, the kernel gives up whatever waits.
    _program: File,
}

impl SilentMount {
    fn at(point: &Path) -> Self {
        let mut program = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", program.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount(SOURCE, point, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str()).unwrap();
        let mut request = vec![0; 128 * 1024];
        let length = program.read(&mut request).unwrap();
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4)), (u32::try_from(length).unwrap(), FUSE_INIT));
        let (unique, version) = (&request[8..16], &request[40..48]);
        let mut answer = [0; ANSWER_BYTES];
        answer[..4].copy_from_slice(&u32::try_from(ANSWER_BYTES).unwrap().to_ne_bytes());
        answer[8..16].copy_from_slice(unique);
        answer[16..24].copy_from_slice(version);
        program.write_all(&answer).unwrap();
        Self { _program: program }
    }
}

fn is_possible() -> bool {
    let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &fuse {
        eprintln!("SKIPPED: a FUSE mount needs root and /dev/fuse ({error}); nothing was tested");
    }
    fuse.is_ok()
}

#[tokio::test]
async fn a_node_registers_without_a_mount_that_never_answers_and_log_doctor_and_inventory_name_it() {
    const TEST: &str = concat!(
        "agent::silent_mount::a_node_registers_without_a_mount_that_never_answers",
        "_and_log_doctor_and_inventory_name_it"
    );
    if !is_possible() || run_inside(TEST, None).unwrap() != Place::Inside {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("silent");
    std::fs::create_dir(&point).unwrap();
    let mount = SilentMount::at(&point);
    let point = point.to_str().unwrap().to_owned();

    let mut controller = Controller::start().await;
    let mut service = Service::start(&controller.url);
    let (mut peer, register) = controller.welcomed(100).await;
    let hardware = &register.system_info.hardware;
    let silent: Vec<_> = hardware.silent_mount.iter().map(|mount| mount.mount_point.as_str()).collect();
    assert_eq!(silent, [&point]);
    assert!(!hardware.disk.iter().any(|disk| disk.mount_point == point));
    peer.heartbeat().await;
    peer.heartbeat().await;

    let inventory = || tokio::task::spawn_blocking(|| run(&mut program(&["inventory", "--output", "json"])));
    let (status, stdout, stderr) = inventory().await.unwrap();
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let told = &answer["systemInfo"]["hardware"]["silentMount"];
    assert_eq!((status, told[0]["mountPoint"].as_str()), (0, Some(point.as_str())), "{stdout}{stderr}");
    let doctor = || tokio::task::spawn_blocking(|| run(&mut program(&["doctor"])));
    let (_, stdout, stderr) = doctor().await.unwrap();
    assert!(stdout.contains(&format!("no answer of {point} (fuse)")), "{stdout}{stderr}");

    service.signal(rustix::process::Signal::TERM);
    service.told("STOPPING=1").await;
    assert_eq!(service.exit_status().await, Some(0));
    drop(mount);
    let mut log = String::new();
    service.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let named: Vec<_> = log.lines().filter(|line| line.contains(&point)).collect();
    assert_eq!(named.len(), 1, "{log}");
    assert!(named[0].contains("WARN") && named[0].contains("does not answer"), "{log}");
}

//! Whatever is wrong with what an installation is given: a stable code, its exit status, one
//! sentence and a cure, and a machine that is as it was. The cases of one test share a machine, so
//! that a case that leaves something also shows in the next.

use aio_protocol::{error_code::ErrorCode, node::NodeStatus};
use aio_tests::{
    controller::Settings,
    lab::{Inside, Listing, Machine},
    release_server::{Behaviour, ReleaseServer},
    wait::wait_for,
};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::site::{COMMAND, SOON, Site, UNIT, install, json_of, succeed};

/// A machine, and how it was.
pub(super) struct Untouched {
    pub(super) machine: Machine,
    before: Listing,
}

impl Untouched {
    pub(super) fn new(machine: Machine) -> Result<Self> {
        let before = machine.listing()?;
        Ok(Self { machine, before })
    }

    /// The machine is meant to be like this from now on.
    fn change(&mut self, script: &str) -> Result<()> {
        self.machine.sh(script).read()?;
        self.before = self.machine.listing()?;
        Ok(())
    }

    /// Runs the command, which must fail with `code`, for people and for programs, and change nothing.
    pub(super) fn refuses(&self, case: &str, code: ErrorCode, command: impl Fn() -> Inside) -> Result<()> {
        self.check(code, &command).with_context(|| format!("case: {case}"))
    }

    fn check(&self, code: ErrorCode, command: &dyn Fn() -> Inside) -> Result<()> {
        let outcome = command().run()?;
        ensure!(
            outcome.status == Some(code.exit_status().into()),
            "not the exit status of {code}: {outcome}"
        );
        let start = format!("error[{code}]: ");
        let errors = outcome.stderr.lines().filter(|line| line.starts_with("error[")).collect::<Vec<_>>();
        ensure!(matches!(errors[..], [error] if error.starts_with(&start)), "not one {start}: {outcome}");
        ensure!(outcome.stderr.contains(&format!("  cure: {}", code.cure())), "no cure: {outcome}");
        let changes = self.before.changes_to(&self.machine.listing()?);
        ensure!(changes.is_empty(), "the machine has changed:\n{changes}{outcome}");

        let outcome = command().args(["--output", "json"]).run()?;
        ensure!(
            outcome.status == Some(code.exit_status().into()),
            "as JSON, not the exit status of {code}: {outcome}"
        );
        let error = &json_of(&outcome)?["error"];
        ensure!(
            error["code"] == code.as_str() && error["cure"] == code.cure(),
            "as JSON, not {code}: {outcome}"
        );
        ensure!(
            error["message"].as_str().is_some_and(|message| !message.is_empty()),
            "no message: {outcome}"
        );
        Ok(())
    }
}

/// The token with other claims; its signature then fits no more.
pub(super) fn forged(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { anyhow::bail!("a token of {} parts", parts.len()) };
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    change(&mut claims);
    Ok(format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string())))
}

#[test]
fn a_bad_token_is_refused() -> Result<()> {
    use ErrorCode::{NotRoot, TokenExpired, TokenForeign, TokenInvalid, TokenMissing};
    let site = Site::new(Settings::default())?;
    let elsewhere = Site::new(Settings::default())?;
    let untouched = Untouched::new(site.machine("tokens")?)?;
    let machine = &untouched.machine;
    let token = site.token.as_str();
    let other = site.controller.register("another-node")?;

    let expired = forged(token, |claims| claims["exp"] = 1_700_000_000.into())?;
    let renamed = forged(token, |claims| claims["sub"] = other.id.as_str().into())?;
    let api = site.controller.url();
    let strange = forged(&elsewhere.token, |claims| claims["api"] = api.into())?;
    let cases: [(&str, ErrorCode, &str); 8] = [
        ("expired", TokenExpired, &expired),
        ("of another node, by its claims alone", TokenInvalid, &renamed),
        ("of another controller", TokenInvalid, &strange),
        ("without its last characters", TokenInvalid, &token[..token.len() - 12]),
        ("cut in the middle", TokenInvalid, &token[..token.len() / 2]),
        ("garbage", TokenInvalid, "garbage"),
        ("empty", TokenMissing, ""),
        ("white space", TokenMissing, " \n"),
    ];
    for (case, code, token) in cases {
        untouched.refuses(case, code, || install(machine, token))?;
    }
    untouched.refuses("none", TokenMissing, || machine.command(COMMAND).args(["install"]))?;
    untouched.refuses("empty on standard input", TokenMissing, || {
        machine.command(COMMAND).args(["install", "--token-file", "-"])
    })?;
    untouched.refuses("of another node than the environment says", TokenForeign, || {
        install(machine, token).env("AIO_NODE_ID", other.id.as_str())
    })?;
    machine.sh(&format!("install -m 0755 {COMMAND} /tmp/aio-worker")).read()?;
    untouched.refuses("good, and the user is not root", NotRoot, || {
        let nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "/tmp/aio-worker"];
        machine.command("setpriv").args(nobody).args(["install", "--token", token])
    })?;
    assert_eq!(
        site.controller.node(site.id())?.status,
        NodeStatus::Pending,
        "none of these is the node's word"
    );
    Ok(())
}

#[test]
fn a_controller_that_is_none_is_named() -> Result<()> {
    use ErrorCode::{ControllerError, ControllerInvalid, ControllerUnreachable, InsecureUrl};
    let site = Site::new(Settings::default())?;
    let untouched = Untouched::new(site.machine("controllers")?)?;
    let machine = &untouched.machine;
    let other_service = ReleaseServer::start(b"<html>welcome</html>".to_vec())?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let at = |api: &str| forged(&site.token, |claims| claims["api"] = api.into());

    let cases = [
        ("nobody listens", ControllerUnreachable, at(&format!("http://{closed}"))?),
        ("no such host", ControllerUnreachable, at("https://no-such-host.invalid")?),
        ("another service", ControllerInvalid, at(&other_service.url())?),
        ("no URL", ControllerInvalid, at("somewhere")?),
        ("plain http to another machine", InsecureUrl, at("http://192.0.2.1")?),
    ];
    for (case, code, token) in &cases {
        untouched.refuses(case, *code, || install(machine, token))?;
    }
    other_service.behave(Behaviour::Status(503));
    let failing = at(&other_service.url())?;
    untouched.refuses("it fails", ControllerError, || install(machine, &failing))?;
    Ok(())
}

#[test]
fn a_bad_release_is_refused_and_the_controller_hears_why() -> Result<()> {
    use ErrorCode::{ChecksumMismatch, DownloadFailed, ReleaseNotFound, SizeMismatch};
    let release = std::fs::read(aio_tests::artifacts::Artifacts::release()?.worker()?)?;
    let server = ReleaseServer::start(release)?;
    let site = Site::new(Settings::default().env("RELEASE_BASE_URL", &server.url()))?;
    let untouched = Untouched::new(site.machine("releases")?)?;
    let machine = &untouched.machine;

    let cases = [
        (Behaviour::Status(404), ReleaseNotFound),
        (Behaviour::Status(500), DownloadFailed),
        (Behaviour::Truncated, DownloadFailed),
        (Behaviour::Endless, SizeMismatch),
        (Behaviour::Longer, SizeMismatch),
        (Behaviour::Altered, ChecksumMismatch),
    ];
    for (behaviour, code) in cases {
        server.behave(behaviour);
        untouched.refuses(&format!("{behaviour:?}"), code, || install(machine, &site.token))?;
        assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Error, "{behaviour:?}");
        let told = || {
            let events = site.controller.events(site.id())?;
            Ok(serde_json::to_value(&events.last().context("no event")?.event)?)
        };
        let is_it = |told: &Value| told["data"]["error"]["code"] == code.as_str();
        wait_for(&format!("NOTI to be told of {code}"), SOON, told, is_it)?;
    }
    server.behave(Behaviour::Honest);
    succeed(install(machine, &site.token), machine).map(drop)
}

#[test]
fn a_machine_that_cannot_take_the_worker_is_left_alone() -> Result<()> {
    use ErrorCode::{
        ConfigInvalid, DbusUnreachable, DiskFull, SystemdMissing, TargetNoexec, TargetReadOnly, UnitMasked,
    };
    let site = Site::new(Settings::default())?;
    let mut untouched = Untouched::new(site.machine("machines")?)?;
    let token = site.token.clone();

    let in_a_namespace = |machine: &Machine, script: &str| {
        let script = format!("{script}\nexec \"$@\"");
        machine
            .command("unshare")
            .args(["--mount", "sh", "-euc", &script, "sh", COMMAND, "install", "--token", &token])
    };
    let machine = &untouched.machine;
    // Nothing of systemd is to be seen where a container without it would have an empty /run.
    untouched
        .refuses("no systemd", SystemdMissing, || in_a_namespace(machine, "mount -t tmpfs none /run"))?;
    untouched
        .refuses("no D-Bus", DbusUnreachable, || in_a_namespace(machine, "mount -t tmpfs none /run/dbus"))?;

    untouched.change("mount --bind /usr/local /usr/local; mount -o remount,bind,ro /usr/local")?;
    untouched.refuses("read-only /usr/local", TargetReadOnly, || install(&untouched.machine, &token))?;
    untouched.change("umount /usr/local; mount -t tmpfs -o size=1m none /usr/local/lib")?;
    untouched.refuses("full disk", DiskFull, || install(&untouched.machine, &token))?;
    untouched.change("umount /usr/local/lib; mount -t tmpfs -o nr_inodes=20 none /usr/local/lib")?;
    untouched.refuses("no inodes", DiskFull, || install(&untouched.machine, &token))?;
    doctor_says(&untouched.machine, &token, DiskFull, "inodes")?;
    untouched.change("umount /usr/local/lib; mount -t tmpfs -o noexec none /usr/local/lib")?;
    untouched.refuses("noexec", TargetNoexec, || install(&untouched.machine, &token))?;
    doctor_says(&untouched.machine, &token, TargetNoexec, "/usr/local/lib/aio-worker")?;
    untouched.change(&format!("umount /usr/local/lib; systemctl mask --runtime {UNIT}"))?;
    untouched.refuses("masked until the next boot", UnitMasked, || install(&untouched.machine, &token))?;
    doctor_says(&untouched.machine, &token, UnitMasked, "until the next boot")?;
    let cure = UnitMasked.cure();
    let cure = cure.split_once("next boot: ").and_then(|(_, rest)| rest.split_once(')')).context(cure)?.0;
    untouched.change(cure)?;
    untouched.change(&format!("ln -s /dev/null /etc/systemd/system/{UNIT}; systemctl daemon-reload"))?;
    untouched.refuses("masked unit", UnitMasked, || install(&untouched.machine, &token))?;
    untouched.change(&format!(
        "rm /etc/systemd/system/{UNIT}; systemctl daemon-reload
        mkdir /etc/aio-worker; echo 'contoller_endpoint = \"ws://x\"' > /etc/aio-worker/config.toml"
    ))?;
    untouched
        .refuses("unknown key in the configuration", ConfigInvalid, || install(&untouched.machine, &token))?;

    untouched.change("rm -r /etc/aio-worker")?;
    succeed(install(&untouched.machine, &token), &untouched.machine).map(drop)
}

/// The doctor fails with this code, for a reason in which these words stand.
fn doctor_says(machine: &Machine, token: &str, code: ErrorCode, words: &str) -> Result<()> {
    let doctor = machine.command(COMMAND).args(["doctor", "--output", "json", "--token-file", "-"]);
    let outcome = doctor.input(token.to_owned()).run()?;
    let said = json_of(&outcome)?;
    let checks = said["checks"].as_array().context("no checks")?;
    let found =
        checks.iter().find(|check| check["code"] == code.as_str()).with_context(|| format!("{outcome}"))?;
    ensure!(found["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{found}");
    Ok(())
}

/// Holds the lock of the system's accounts, as lckpwdf(3) does, until it is killed. The command
/// ends when the lock is held.
const LOCK_HOLDER: &str =
    "exec perl -MFcntl -e 'pipe my $held, my $tell; if (fork) { close $tell; <$held>; exit }
    open my $lock, q(>>), q(/etc/.pwd.lock) or die; my $whole = pack q(ssx4qqi), F_WRLCK, 0, 0, 0, 0;
    fcntl $lock, F_SETLKW, $whole or die; close $tell; sleep'";

#[test]
fn who_holds_the_account_lock_is_told_while_the_installation_waits_for_it() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("account-lock")?;
    machine.write("/root/hold", "0755", format!("#!/bin/sh\n{LOCK_HOLDER}\n"))?;
    machine.sh("systemd-run --quiet --unit holder --property Type=forking /root/hold").read()?;
    doctor_says(&machine, &site.token, ErrorCode::AccountsLocked, "perl (process ")?;
    let script = format!(
        "{COMMAND} install --token {} 2>/root/said & pid=$!
        until grep -q 'waiting for perl (process ' /root/said || ! kill -0 $pid; do sleep 0.05; done
        systemctl stop holder; wait $pid",
        site.token
    );
    let outcome = machine.sh(&script).run()?;
    ensure!(outcome.status == Some(0), "{outcome}{}", machine.read("/root/said")?);
    ensure!(machine.read("/root/said")?.contains("waiting for perl (process "), "it was not told");
    site.wait_until_online(&machine).map(drop)
}

#[test]
fn a_machine_that_is_installed_refuses_another_nodes_token() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("identity")?;
    succeed(install(&machine, &site.token), &machine)?;
    let installed = Untouched::new(machine)?;
    let pid = installed.machine.unit_property(UNIT, "MainPID")?;
    let other = site.controller.register("another-node")?;
    let other_token = site.controller.token(&other.id, &json!({}))?.token;

    installed.refuses("another node's token", ErrorCode::IdentityConflict, || {
        install(&installed.machine, &other_token)
    })?;

    assert_eq!(installed.machine.unit_property(UNIT, "MainPID")?, pid);
    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Online);
    Ok(())
}

#[test]
fn a_service_that_does_not_start_says_why_to_the_operator_and_to_the_controller() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = site.machine("no-start")?;
    // In the place of the service's own: before it, systemd 247 has no credentials to mount.
    let drop_in = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo the-reason-why; exit 3'\n";
    machine.write("/etc/systemd/system/aio-worker.service.d/broken.conf", "0644", drop_in)?;
    let before = machine.listing()?;

    let outcome = install(&machine, &site.token).run()?;

    ensure!(outcome.status == Some(i32::from(ErrorCode::ServiceFailed.exit_status())), "{outcome}");
    ensure!(outcome.stderr.contains("the-reason-why") && outcome.stderr.contains("exit-code"), "{outcome}");
    ensure!(before.changes_to(&machine.listing()?).is_empty(), "{}", before.changes_to(&machine.listing()?));
    let events = ["node.registered", "node.installation_started", "node.installation_failed"];
    let events = site.controller.wait_for_events(site.id(), &events)?;
    let failed = serde_json::to_string(&events[2].event)?;
    ensure!(failed.contains("the-reason-why") && !failed.contains(&site.token), "{failed}");
    Ok(())
}

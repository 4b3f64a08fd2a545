//! Surroundings that real machines have: no network, a read-only root, a wrong clock, a proxy, a
//! bad line. (No D-Bus and a full disk stand in `bad_input`, a private authority in `tls`.) What
//! cannot work is refused with its code, the machine as it was, and the controller told whatever
//! can be told; what can work does.

use std::time::{Duration, Instant};

use aio_protocol::{error_code::ErrorCode, event::EventBody, node::NodeStatus};
use aio_tests::{
    controller::Settings,
    lab::{Badness, Machine},
    proxy::Proxy,
    wait::wait_for,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{
    bad_input::{Untouched, forged},
    site::{COMMAND, HOST, SOON, Site, install, succeed},
};

#[test]
fn without_network_the_controller_is_named_as_unreachable() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let machine = Machine::boot_without_network("no-network")?;
    site.put_command(&machine)?;
    let untouched = Untouched::new(machine)?;
    let at = |api: &str| forged(&site.token, |claims| claims["api"] = api.into());
    let cases = [
        ("by name", at(&format!("https://{HOST}"))?),
        ("by address", at("https://192.0.2.1")?),
        ("on this very machine, where nobody listens", site.token.clone()),
    ];
    for (case, token) in &cases {
        untouched.refuses(case, ErrorCode::ControllerUnreachable, || install(&untouched.machine, token))?;
    }
    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Pending, "it cannot have heard of it");
    Ok(())
}

#[test]
fn a_read_only_root_is_refused_as_that_and_as_nothing_else() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let untouched = Untouched::new(site.machine("read-only")?)?;
    let read_only = || {
        let script =
            format!("mount -o remount,bind,ro /; exec {COMMAND} install --token {} \"$@\"", site.token);
        untouched.machine.command("unshare").args(["--mount", "sh", "-euc", &script, "sh"])
    };
    untouched.refuses("read-only root", ErrorCode::TargetReadOnly, read_only)?;
    untouched.refuses("read-only root, only planned", ErrorCode::TargetReadOnly, || {
        read_only().args(["--dry-run"])
    })?;
    // There is no place for a lock, so it ends before it asks anybody.
    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Pending);
    Ok(())
}

#[test]
fn a_clock_that_is_a_day_off_is_refused_in_words_and_the_controller_hears_of_it() -> Result<()> {
    let site = Site::new(Settings::default())?;
    let untouched = Untouched::new(site.machine("clock")?)?;
    let token = site.controller.token(site.id(), &json!({ "expiresIn": 7 * 24 * 3600 }))?.token;
    for (offset, words) in [("+1d", "ahead of"), ("-1d", "behind")] {
        let skewed = || {
            let command = untouched.machine.command("faketime").args(["-f", offset, COMMAND, "install"]);
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").args(["--token", &token])
        };
        untouched.refuses(offset, ErrorCode::ClockSkewed, skewed)?;
        let outcome = skewed().run()?;
        ensure!(outcome.stderr.contains(words) && outcome.stderr.contains("controller's"), "{outcome}");
        assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Error, "{offset}");
        let last = || site.controller.events(site.id())?.pop().context("no event");
        let told =
            wait_for("the failure's event", SOON, last, |event| event.kind() == "node.installation_failed")?;
        let EventBody::InstallationFailed(failed) = &told.event.body else { bail!("{told:?}") };
        assert_eq!(failed.detail.error.code, ErrorCode::ClockSkewed.as_str());
    }
    succeed(install(&untouched.machine, &token), &untouched.machine).map(drop)
}

#[test]
fn installation_and_daemon_go_through_the_proxy_where_there_is_no_other_way() -> Result<()> {
    let site = Site::over_tls("127.0.0.1")?;
    let machine = Machine::boot_without_network("proxy")?;
    site.put_command(&machine)?;
    let proxy = Proxy::start(machine.plug()?.ours.into(), HOST)?;
    let untouched = Untouched::new(machine)?;
    let machine = &untouched.machine;
    untouched.refuses("not told of the proxy", ErrorCode::ControllerUnreachable, || {
        install(machine, &site.token)
    })?;
    untouched.refuses("told not to use it", ErrorCode::ControllerUnreachable, || {
        install(machine, &site.token).env("HTTPS_PROXY", &proxy.url()).env("NO_PROXY", HOST)
    })?;
    ensure!(proxy.asked().is_empty(), "{:?}", proxy.asked());

    succeed(install(machine, &site.token).env("HTTPS_PROXY", &proxy.url()), machine)?;

    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Online, "the daemon goes through it too");
    let config = machine.read("/etc/aio-worker/config.toml")?;
    ensure!(config.contains(&format!("\nproxy = \"{}\"\n", proxy.url())), "{config}");
    let asked = proxy.asked();
    let tunnel = format!("CONNECT {HOST}:");
    ensure!(asked.len() >= 2 && asked.iter().all(|line| line.starts_with(&tunnel)), "{asked:?}");
    Ok(())
}

#[test]
fn a_slow_line_that_loses_packets_takes_longer_and_nothing_else() -> Result<()> {
    // Both ways: an answer takes 200 ms.
    const BAD: Badness = Badness { delay: Duration::from_millis(100), loss: 0.05 };
    const BOUND: Duration = Duration::from_secs(90);
    let site = Site::over_tls("0.0.0.0")?;
    let machine = Machine::boot_without_network("bad-line")?;
    site.put_command(&machine)?;
    let line = machine.plug_into_bad_line(BAD)?;
    machine.sh(&format!("echo {} {HOST} >> /etc/hosts", line.ends.ours)).read()?;

    let began = Instant::now();
    succeed(install(&machine, &site.token), &machine)?;
    let took = began.elapsed();

    println!("bad line: 200 ms there and back, 5 % loss: online after {:.1} s", took.as_secs_f64());
    assert_eq!(site.controller.node(site.id())?.status, NodeStatus::Online);
    ensure!(took > BAD.delay * 8, "{took:?} is too soon for such a line");
    ensure!(took < BOUND, "it took {took:?}");
    Ok(())
}

//! What befalls a session on real machines: a connection that ends without a word, a controller
//! that is elsewhere afterwards, a clock that somebody sets.

use std::time::Duration;

use aio_protocol::error_code::ErrorCode;
use aio_tests::{
    controller::Settings,
    lab::{Badness, Machine},
    wait::wait_for,
};
use anyhow::Result;
use serde_json::{Value, json};

use super::{
    clock,
    site::{HOST, SOON, Site, UNIT, install, status, succeed},
};

/// A pong's time and a heartbeat's pace, and what a busy test computer adds.
const NOTICED: Duration = Duration::from_secs(20 + 1 + 9);
/// The backoff's cap, and a connection.
const CAP: Duration = Duration::from_secs(60 + 15);

#[test]
fn a_connection_that_is_half_open_is_noticed_and_the_controller_is_found_where_its_name_then_leads()
-> Result<()> {
    let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
    let settings = Settings::default()
        .listen(&format!("0.0.0.0:{port}"))
        .env("TLS_SELF_SIGNED", "true")
        .env("PUBLIC_URL", &format!("https://{HOST}:{port}"))
        .heartbeat_timeout("3s");
    let site = Site::new(settings)?;
    let machine = Machine::boot_without_network("reconnects")?;
    site.put_command(&machine)?;
    let line = machine.plug_into_bad_line(Badness::NONE)?;
    let leads_to =
        |address: &str| machine.replace("/etc/hosts", format!("127.0.0.1 localhost\n{address} {HOST}\n"));
    leads_to(&line.ends.ours.to_string())?;
    succeed(install(&machine, &site.token), &machine)?;
    let pid = machine.unit_property(UNIT, "MainPID")?;
    let session = || -> Result<Value> { Ok(status(&machine)?["session"].clone()) };
    let unreachable = |words: &'static str| {
        move |session: &Value| {
            session["code"] == json!(ErrorCode::ControllerUnreachable.as_str())
                && session["detail"].as_str().is_some_and(|detail| detail.contains(words))
        }
    };

    line.becomes(Badness::CUT);
    wait_for("the silence to be noticed", NOTICED, session, unreachable("answered no ping"))?;

    // The name leads to where nobody listens. The line stays cut: a try that has begun could come
    // through where it led before.
    leads_to("127.0.0.9")?;
    wait_for("a try where nobody listens", CAP, session, unreachable("refused"))?;

    leads_to(&line.ends.ours.to_string())?;
    line.becomes(Badness::NONE);
    wait_for("the daemon to be online again", CAP, session, |session| session["state"] == json!("online"))?;
    site.controller.wait_for_status(site.id(), aio_protocol::node::NodeStatus::Online, SOON)?;
    assert_eq!(machine.unit_property(UNIT, "MainPID")?, pid, "it is another process");
    Ok(())
}

#[test]
fn a_clock_that_is_set_is_a_line_in_the_log_and_nothing_to_the_session() -> Result<()> {
    const WORDS: &str = "the clock of this machine was set";
    /// The clocks are looked at every 30 s where the kernel does not say anything, and nobody's
    /// real clock was set.
    const LOOKED_AT: Duration = Duration::from_secs(45);
    let site = Site::new(Settings::default().heartbeat_timeout("3s"))?;
    let machine = site.machine("clock-set")?;
    succeed(install(&machine, &site.token), &machine)?;
    clock::give(&machine)?;
    machine.command("systemctl").args(["restart", UNIT]).read()?;
    let online = |told: &Value| told["session"]["state"] == json!("online");
    let before = wait_for("the daemon to be online", SOON, || status(&machine), online)?;
    let journal =
        || machine.command("journalctl").args(["--no-pager", "--output=verbose", "--unit", UNIT]).read();
    assert!(!journal()?.contains(WORDS));

    clock::set(&machine, -3600)?;
    clock::is_gone_by(&machine, -3600, Duration::from_secs(60))?;
    let told = wait_for("a line in the log", LOOKED_AT, journal, |journal| journal.contains(WORDS))?;

    assert_eq!(told.matches(WORDS).count(), 1, "{told}");
    assert!(told.contains("SECONDS=3600") || told.contains("SECONDS=3599"), "{told}");
    assert!(told.contains("DIRECTION=back"), "{told}");
    let after = status(&machine)?;
    for field in ["state", "since", "sessions", "detail"] {
        assert_eq!(before["session"][field], after["session"][field], "{field}");
    }
    Ok(())
}

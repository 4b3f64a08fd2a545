//! The demo, as a person or a script runs it. (With `--systemd` it stands under `lab::`.)

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::{Command, Output, Stdio},
};

use aio_tests::artifacts::Artifacts;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn demo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aio-demo"));
    command.args(arguments).env("AIO_BIN_DIR", Artifacts::release()?.folder()).stdin(Stdio::null());
    Ok(command)
}

fn summary(output: &Output) -> Result<Value> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    let lines: Vec<_> = stdout.lines().collect();
    ensure!(lines.len() == 1, "not one line: {stdout}");
    Ok(serde_json::from_str(lines[0])?)
}

fn is_online(summary: &Value) {
    let events = json!(["node.registered", "node.installation_started", "node.connected"]);
    assert_eq!(summary["status"], "online", "{summary}");
    assert_eq!(summary["events"], events, "{summary}");
    assert_eq!(summary["nodeId"].as_str().map(str::len), Some(24), "{summary}");
    let seconds = summary["seconds"].as_f64().unwrap_or(f64::NAN);
    assert!(seconds > 0.0 && seconds < 60.0, "{summary}");
}

#[test]
fn once_ends_with_one_line_of_json_when_the_node_is_online() -> Result<()> {
    let summary = summary(&demo(&["--once"])?.output()?)?;
    is_online(&summary);
    Ok(())
}

pub(crate) fn once_on_systemd() -> Result<()> {
    let summary = summary(&demo(&["--once", "--systemd"])?.output()?)?;
    is_online(&summary);
    Ok(())
}

#[test]
fn it_shows_each_event_and_ctrl_c_ends_it_with_nothing_left() -> Result<()> {
    let mut demo = demo(&[])?.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(demo.stderr.take().context("no standard error")?).lines();
    let mut shown = String::new();
    for line in lines.by_ref() {
        let line = line?;
        shown += &format!("{line}\n");
        if line.contains("Ctrl-C") {
            break;
        }
    }
    for event in ["node.registered", "node.connected"] {
        assert!(shown.contains(event), "{event} is not shown:\n{shown}");
    }
    let address = shown.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.with_context(|| format!("no address:\n{shown}"))?.to_owned();
    let pid = i32::try_from(demo.id()).ok().and_then(Pid::from_raw).context("no pid")?;

    kill_process(pid, Signal::INT)?;

    let rest = lines.collect::<std::io::Result<Vec<_>>>()?.join("\n");
    assert!(demo.wait()?.success(), "{rest}");
    assert!(rest.contains("node.disconnected"), "the goodbye is not shown:\n{rest}");
    assert!(TcpStream::connect(&address).is_err(), "the controller still listens on {address}");
    Ok(())
}

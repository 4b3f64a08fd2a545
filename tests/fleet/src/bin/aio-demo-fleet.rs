//! `aio-demo-fleet`: a controller with a simulated fleet, most of it well, for whoever wants to look at the
//! pages. Runs until Ctrl-C; what a person reads goes to standard error.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use aio_fleet::{Mood, Showcase};
use aio_tests::{
    artifacts::Artifacts,
    controller::{Controller, Node, Settings},
    wait::wait_for,
};
use anyhow::Result;
use clap::Parser;
use serde_json::{Value, json};

/// A controller with a simulated fleet, to be looked at
#[derive(Debug, Parser)]
struct Arguments {
    /// How many nodes
    #[arg(default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    nodes: u32,
    /// Stop when the fleet is there, and print one line of JSON
    #[arg(long)]
    once: bool,
}

/// Until the workers are online.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes of a rack.
const RACK: u32 = 16;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let artifacts = Artifacts::beside_this_program()?;
    // All requests come from one user, one after the other, and all workers at once.
    let settings = Settings::default()
        .env("API_REQUESTS_PER_SECOND", "100000")
        .env("UPGRADES_PER_SECOND", "1000")
        .heartbeat_timeout("120s");
    let controller = Controller::start(&artifacts, &settings)?;
    eprintln!("demo: the controller listens on {}", controller.url());
    eprintln!("demo: look at it, once: {}", controller.login()?);
    let workers = Showcase::at(controller.url())?;
    let began = Instant::now();
    let mut started = 0;
    for number in 1..=arguments.nodes {
        let labels = json!({ "rack": format!("r{:02}", number.div_ceil(RACK)),
            "group": if number.is_multiple_of(3) { "inference" } else { "training" } });
        let registration =
            json!({ "name": format!("gpu-{number:03}"), "role": ["worker"], "labels": labels });
        let node: Node = serde_json::from_value(controller.order("/nodes", &registration)?)?;
        let mood = match number {
            // Nobody has installed it yet.
            _ if number.is_multiple_of(29) => continue,
            _ if number.is_multiple_of(37) => {
                fail(&controller, &node)?;
                continue;
            }
            _ if number.is_multiple_of(41) => Mood::Broken,
            _ if number.is_multiple_of(17) => Mood::Hot,
            _ => Mood::Lively,
        };
        workers.start(node.id.clone(), controller.token(&node.id, &json!({}))?.token, mood)?;
        started += 1;
    }
    let online =
        wait_for("the workers to be online", PATIENCE, || Ok(workers.online()), |it| *it == started)?;
    for number in (13..=arguments.nodes).step_by(53) {
        let name = format!("gpu-{number:03}");
        let found = controller.ask(&format!("/nodes?name={name}&status=online"))?;
        if let Some(id) = found["data"][0]["_id"].as_str() {
            controller.order(&format!("/nodes/{id}/maintenance"), &json!({}))?;
        }
    }
    eprintln!("demo: {online} of {} workers are online. Ctrl-C ends it.", arguments.nodes);
    if arguments.once {
        let line =
            json!({ "nodes": arguments.nodes, "online": online, "seconds": began.elapsed().as_secs_f64() });
        println!("{line}");
    } else {
        wait_for_the_end()?;
    }
    drop(workers);
    controller.stop()
}

/// An installation that came to nothing.
fn fail(controller: &Controller, node: &Node) -> Result<()> {
    let token = controller.token(&node.id, &json!({}))?.token;
    let reports: [Value; 2] = [
        json!({ "phase": "started", "version": "v1.0.0" }),
        json!({ "phase": "failed", "step": "start_service", "error":
            { "code": "SERVICE_FAILED", "message": "aio-worker.service did not stay up: exit status 78" } }),
    ];
    for report in reports {
        controller.report(&node.id, &token, &report)?;
    }
    Ok(())
}

/// Waits for Ctrl-C, or for whoever ends services.
fn wait_for_the_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

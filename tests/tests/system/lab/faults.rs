//! Installations in a row with a random fault at a random moment in each. However it strikes, the
//! node is online, or the command said why and the machine is as it was, or it was killed and the
//! next command brings the machine back. `AIO_LAB_INSTALLS` says how many (10 unless told),
//! `AIO_LAB_SEED` repeats a run.

use std::{collections::BTreeMap, env, thread, time::Duration};

use aio_protocol::error_code::ErrorCode;
use aio_tests::{artifacts::WORKER_FILE, controller::Settings, lab::Machine};
use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use serde_json::json;

use super::{
    installs::{is_as_it_was, is_as_it_was_but_for_reports},
    site::{COMMAND, SOON, Site, install, json_of, succeed},
};

/// The longest that an undisturbed installation takes here, and some more: faults strike anywhere
/// in it, or after it.
const SPAN: Duration = Duration::from_millis(450);

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The installer is killed.
    Kill,
    /// The installer is asked to stop.
    Terminate,
    /// The controller dies and is there again a little later.
    ControllerDies,
    /// The controller takes connections and answers nothing, for a while.
    ControllerHangs,
    /// The release server hands out an altered file.
    Altered,
    /// The program that the service runs ends at once.
    ServiceFails,
    /// There is less room than the release needs.
    NoRoom,
}

const FAULTS: [Fault; 7] = [
    Fault::Kill,
    Fault::Terminate,
    Fault::ControllerDies,
    Fault::ControllerHangs,
    Fault::Altered,
    Fault::ServiceFails,
    Fault::NoRoom,
];

#[test]
fn however_faults_strike_an_installation_ends_online_or_with_a_code_and_the_machine_as_it_was() -> Result<()>
{
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (installs, seed) = (
        number("AIO_LAB_INSTALLS").unwrap_or(10),
        number("AIO_LAB_SEED").unwrap_or_else(|| fastrand::u64(..)),
    );
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut site = Site::new(Settings::default())?;
    let machine = site.machine("faults")?;
    let before = machine.listing()?;
    let mut tally = BTreeMap::<String, u32>::new();
    for round in 0..installs {
        let fault = FAULTS[rng.usize(..FAULTS.len())];
        let moment = SPAN.mul_f64(rng.f64());
        let context = || format!("round {round}, {fault:?} after {moment:?}, seed {seed}");
        let end = strike(&mut site, &machine, fault, moment).with_context(context)?;
        *tally.entry(format!("{fault:?}: {end}")).or_default() += 1;
        if end == "online" {
            site.wait_until_online(&machine).with_context(context)?;
        } else if end != "killed" {
            is_as_it_was_but_for_reports(&before, &machine).with_context(context)?;
        }
        let purge = machine.command(COMMAND).args(["uninstall", "--purge"]).bound(SOON);
        succeed(purge, &machine).with_context(context)?;
        is_as_it_was(&before, &machine).with_context(context)?;
    }
    println!("{installs} installations: {tally:#?}");
    Ok(())
}

/// One installation, and how it ended: `online`, `killed`, or its code.
fn strike(site: &mut Site, machine: &Machine, fault: Fault, moment: Duration) -> Result<String> {
    let token = site.controller.token(site.id(), &json!({}))?.token;
    let seconds = format!("{:.3}", moment.as_secs_f64());
    let signal = |signal: &str| {
        let arguments = [signal, &seconds, COMMAND, "install", "--output", "json", "--token", &token];
        machine.command("timeout").args(arguments).bound(SOON)
    };
    let plain = || install(machine, &token).args(["--output", "json"]);
    let outcome = match fault {
        Fault::Kill => signal("--signal=KILL").run()?,
        Fault::Terminate => signal("--signal=TERM").run()?,
        Fault::ControllerDies => thread::scope(|scope| {
            let controller = &mut site.controller;
            let dying = scope.spawn(move || {
                thread::sleep(moment);
                controller.kill()?;
                thread::sleep(moment);
                controller.start_again()
            });
            let outcome = plain().run();
            dying.join().map_err(|_| anyhow::anyhow!("the controller's end panicked"))??;
            outcome
        })?,
        Fault::ControllerHangs => thread::scope(|scope| {
            let controller = &site.controller;
            let hanging = scope.spawn(move || {
                thread::sleep(moment);
                controller.freeze()?;
                thread::sleep(moment * 2);
                controller.thaw()
            });
            let outcome = plain().run();
            hanging.join().map_err(|_| anyhow::anyhow!("the controller's sleep panicked"))??;
            outcome
        })?,
        Fault::Altered => {
            site.alter_release(WORKER_FILE)?;
            let outcome = plain().run()?;
            site.alter_release(WORKER_FILE)?;
            outcome
        }
        Fault::ServiceFails => {
            let drop_in = "/run/systemd/system/aio-worker.service.d/fault.conf";
            machine.write(drop_in, "0644", "[Service]\nExecStart=\nExecStart=/bin/false\n")?;
            let outcome = plain().run()?;
            machine.command("rm").args(["-r", "/run/systemd/system/aio-worker.service.d"]).read()?;
            outcome
        }
        Fault::NoRoom => {
            let script = format!(
                "mount -t tmpfs -o size=1m none /usr/local/lib; exec {COMMAND} install --output json --token {token}"
            );
            machine.command("unshare").args(["--mount", "sh", "-euc", &script]).bound(SOON).run()?
        }
    };
    match outcome.status {
        Some(0) => Ok("online".to_owned()),
        // As `timeout` says that it killed.
        None | Some(137) => Ok("killed".to_owned()),
        // Before it listened to signals it had changed nothing, and ends as any program.
        Some(124) if outcome.stdout.is_empty() => Ok("ended before it began".to_owned()),
        Some(status) => {
            let answer = json_of(&outcome)?;
            // The signal came when the command had answered and not yet ended; whether it is online
            // is looked at as after any success.
            if status == 124 && answer["outcome"] == "installed" {
                return Ok("online".to_owned());
            }
            let code = answer["error"]["code"].as_str().context("no code")?;
            let Some(known) = ErrorCode::parse(code) else { bail!("an unknown code: {outcome}") };
            // `timeout` has a status of its own for a command that it ended.
            ensure!(status == 124 || status == i32::from(known.exit_status()), "{outcome}");
            Ok(code.to_owned())
        }
    }
}

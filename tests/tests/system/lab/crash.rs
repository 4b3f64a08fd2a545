//! SIGKILL at every moment of an installation, on real systemd. The moments are the code's own: a
//! new step cannot be forgotten.

use std::{path::Path, process::Command, time::Instant};

use aio_tests::controller::Settings;
use anyhow::{Context, Result, ensure};

use super::{
    installs::is_as_it_was,
    site::{COMMAND, Site, install, succeed},
};

/// Built with the tests: what is shipped has no way to die on demand.
const CRASHING: &str = env!("CARGO_BIN_EXE_aio-crash");

#[test]
fn an_installation_that_is_killed_at_every_moment_is_made_good_or_taken_back() -> Result<()> {
    let listed = Command::new(CRASHING).arg("list").output()?;
    let moments = String::from_utf8(listed.stdout)?;
    let moments: Vec<_> = moments.lines().collect();
    ensure!(moments.len() > 30, "{moments:?}");
    let site = Site::new(Settings::default())?;
    let machine = site.machine("crash")?;
    machine.copy_in(Path::new(CRASHING), "/root/aio-crash", "0755")?;
    let before = machine.listing()?;
    let began = Instant::now();
    for (index, moment) in moments.iter().enumerate() {
        let context = || format!("killed at {moment}");
        let killed = machine.command("/root/aio-crash").args(["at", moment, &site.token]).run()?;
        // As a shell says it of a command that ended with signal 9.
        ensure!(matches!(killed.status, None | Some(137)), "{moment}: {killed}");
        if index % 2 == 0 {
            succeed(install(&machine, &site.token), &machine).with_context(context)?;
            site.wait_until_online(&machine).with_context(context)?;
        }
        succeed(machine.command(COMMAND).args(["uninstall", "--purge"]), &machine).with_context(context)?;
        is_as_it_was(&before, &machine).with_context(context)?;
    }
    println!("killed at {} moments, in {:.0} s", moments.len(), began.elapsed().as_secs_f64());
    Ok(())
}

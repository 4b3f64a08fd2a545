//! A node of the release before this one: it is upgraded once by hand, with its own program, and
//! updates itself from then on. Takes that release's program, which `AIO_WORKER_BEFORE` names:
//! `cargo xtask load updates --before PROGRAM`.

use std::path::PathBuf;

use super::*;

#[test]
#[ignore = "takes the program of the release before: cargo xtask load updates --before PROGRAM"]
fn a_node_of_the_release_before_is_upgraded_by_hand_and_updates_itself_from_then_on() -> Result<()> {
    const LATER: &str = "v1.2.0";
    let before = std::env::var_os("AIO_WORKER_BEFORE").context("AIO_WORKER_BEFORE names no program")?;
    let before = PathBuf::from(before);
    let publisher = Publisher::new()?;
    let artifacts = Artifacts::release()?;
    let publish = |tree: &Path| {
        fs::remove_dir_all(tree.join(VERSION))?;
        let replace = |place: &Path| Ok(fs::copy(&before, place.join(WORKER_FILE)).map(drop)?);
        publisher.publish(&artifacts, tree, VERSION, replace)?;
        publisher.publish(&artifacts, tree, NEXT, sound)?;
        publisher.index(tree, |_| {}).map(drop)
    };
    let settings = Settings::default().env("RELEASE_PUBLIC_KEY", &publisher.key());
    let site = Site::with_releases(settings, publish)?;
    let machine = Machine::boot("updates-before")?;
    machine.copy_in(&before, COMMAND, "0755")?;
    succeed(install(&machine, &site.token), &machine)?;
    assert_eq!(runs(&machine)?, VERSION);

    // What the controller prints, with the program that is installed.
    let printed = site.controller.add_tokens(&["--all", "--daemon-version", NEXT])?;
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("sudo aio-worker "));
    let words = command.with_context(|| printed.clone())?.split_whitespace();
    succeed(machine.command("/usr/local/bin/aio-worker").args(words), &machine)?;
    assert_eq!(runs(&machine)?, NEXT);

    let again = ["install", "--token-file", "/etc/aio-worker/token", "--auto-update"];
    succeed(machine.command("/usr/local/bin/aio-worker").args(again), &machine)?;
    machine.write(
        "/etc/systemd/system/aio-worker-update.service.d/lab.conf",
        "0644",
        "[Service]\nEnvironment=AIO_UPDATE_PROBATION=2\n",
    )?;
    machine.command("systemctl").args(["daemon-reload"]).read()?;
    let node = Updated { site, publisher, machine };
    node.publish(LATER, sound)?;
    node.ask_for(LATER)?;
    assert_eq!(node.verdict(LATER)?, (Verdict::Succeeded, None), "{}", node.journals());
    assert_eq!(runs(&node.machine)?, LATER);
    assert_eq!(node.site.controller.node(node.site.id())?.status, NodeStatus::Online);
    Ok(())
}

//! A controller that other machines reach, with an authority of its own: what its tokens name is
//! all that a node needs, and nothing else will do.

use aio_protocol::error_code::ErrorCode;
use aio_tests::lab::Machine;
use anyhow::{Context, Result};
use serde_json::json;

use super::{
    bad_input::{Untouched, forged},
    installs::paste,
    site::{HOST, Site, install, json_of, succeed},
};

fn machine(site: &Site, name: &str) -> Result<Machine> {
    let machine = site.machine(name)?;
    machine.sh(&format!("echo 127.0.0.1 {HOST} other.lab.example >> /etc/hosts")).read()?;
    Ok(machine)
}

fn connected_over_tls(machine: &Machine) -> Result<()> {
    let told = machine.command("aio-worker").args(["status", "--output", "json"]).run()?;
    let told = json_of(&told)?;
    assert_eq!(told["session"]["state"], "online", "{told}");
    let controller = told["controller"].as_str().unwrap_or_default();
    assert!(controller.starts_with(&format!("wss://{HOST}:")), "{told}");
    Ok(())
}

#[test]
fn another_authority_changes_nothing_and_the_tokens_own_installs_over_tls() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let untouched = Untouched::new(machine(&site, "tls")?)?;
    let stranger = forged(&site.token, |claims| claims["ca"] = format!("sha256:{}", "a".repeat(64)).into())?;
    let unpinned =
        forged(&site.token, |claims| drop(claims.as_object_mut().map(|claims| claims.remove("ca"))))?;
    let elsewhere = forged(&site.token, |claims| {
        claims["api"] = claims["api"].as_str().unwrap_or_default().replace("aiwm.", "other.").into();
    })?;
    let machine = &untouched.machine;
    for (case, code, token) in [
        ("another authority", ErrorCode::CaMismatch, &stranger),
        ("no authority, and the system knows none", ErrorCode::TlsFailed, &unpinned),
        ("a name that the certificate is not for", ErrorCode::TlsFailed, &elsewhere),
    ] {
        untouched.refuses(case, code, || install(machine, token))?;
    }

    succeed(install(machine, &site.token), machine)?;
    site.wait_until_online(machine)?;
    connected_over_tls(machine)?;
    let planned = succeed(install(machine, &site.token).args(["--dry-run", "--output", "json"]), machine)?;
    assert_eq!(json_of(&planned)?["steps"], json!([]), "{planned}");
    Ok(())
}

#[test]
fn the_install_script_carries_the_authority_and_needs_no_other() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let machine = machine(&site, "tls-script")?;
    let script = site.controller.token(site.id(), &json!({}))?.install_script.context("no script")?;
    // Whatever the system trusts, the download is not trusted by it.
    machine.sh("rm -rf /etc/ssl/certs").read()?;
    let outcome = paste(&machine, &script)?;
    assert_eq!(outcome.status, Some(0), "{outcome}");
    site.wait_until_online(&machine)?;
    connected_over_tls(&machine)
}

#[test]
fn a_file_of_authorities_is_copied_for_the_daemon() -> Result<()> {
    let site = Site::over_tls("0.0.0.0")?;
    let machine = machine(&site, "ca-file")?;
    let unpinned = || {
        let claims = |claims: &mut serde_json::Value| drop(claims.as_object_mut().map(|it| it.remove("ca")));
        site.signed(&site.token, claims)
    };
    let authority = std::fs::read_to_string(site.controller.data_dir().join("tls/authority.pem"))?;
    let certificate = authority.split("-----BEGIN PRIVATE KEY").next().context("no certificate")?;
    // Where the daemon cannot look.
    machine.write("/root/company.pem", "0600", certificate)?;
    let token = unpinned()?;
    succeed(install(&machine, &token).args(["--ca-file", "/root/company.pem"]), &machine)?;
    connected_over_tls(&machine)?;
    assert_eq!(machine.read("/etc/aio-worker/ca.pem")?, certificate);
    // What was made known stays known.
    succeed(install(&machine, &token), &machine)?;
    Ok(())
}

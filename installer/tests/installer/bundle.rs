//! Installing from a bundle: without a release server, and without a controller.

use std::{fs, path::PathBuf};

use aio_host::layout::UNIT;
use aio_installer::{Goal, install::OutcomeKind};
use aio_protocol::error_code::ErrorCode;
use minisign::KeyPair;
use serde_json::json;

use crate::{
    bad_input::fails,
    server::{Release, program, sha256},
    world::World,
};

/// A bundle as `aio-worker bundle` writes it, beside the machine.
fn bundle(world: &World, version: &str, file: &[u8], signature: Option<String>) -> PathBuf {
    let manifest = json!({ "version": version, "platform": "linux-amd64", "checksum": sha256(file),
        "size": file.len(), "signature": signature });
    let path = world.dir.path().join("run/release.tar");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    for (name, bytes) in [("release.json", manifest.to_string().as_bytes()), ("linux-amd64", file)] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    builder.finish().unwrap();
    path
}

fn sign(keys: &KeyPair, bytes: &[u8]) -> Option<String> {
    let comment = Some("file:linux-amd64 version:v1.0.0");
    Some(minisign::sign(Some(&keys.pk), &keys.sk, bytes, comment, None).unwrap().into_string())
}

#[tokio::test]
async fn a_bundle_replaces_the_release_server_and_must_be_what_the_controller_plans() {
    let mut world = World::new().await;
    world.change(|server| server.release = Release::Status(404));
    let file = world.change(|server| server.file.clone());
    for (version, bytes, code) in [
        ("v0.9.0", file.clone(), ErrorCode::ReleaseSwapped),
        ("v1.0.0", program(b"another"), ErrorCode::ChecksumMismatch),
    ] {
        world.request.bundle = Some(bundle(&world, version, &bytes, None));
        fails(&world, code).await;
    }
    world.request.bundle = Some(bundle(&world, "v1.0.0", &file, None));
    let outcome = world.install().await.unwrap();
    assert!(matches!(outcome.kind, OutcomeKind::Installed { .. }), "{outcome:?}");
    assert_eq!(fs::read(world.release("v1.0.0")).unwrap(), file);
    assert_eq!(world.change(|server| server.downloads), 0);
}

#[tokio::test]
async fn what_is_no_bundle_is_refused_before_anybody_is_asked() {
    let mut world = World::new().await;
    let path = world.dir.path().join("run/release.tar");
    fs::write(&path, b"something else").unwrap();
    world.request.bundle = Some(path);
    fails(&world, ErrorCode::BundleInvalid).await;
    assert_eq!(world.change(|server| server.plans), 0);
}

#[tokio::test]
async fn without_the_controller_a_signed_bundle_is_installed_and_starts_with_the_next_boot() {
    let keys = KeyPair::generate_unencrypted_keypair().unwrap();
    let mut world = World::new().await;
    let file = world.change(|server| server.file.clone());
    world.use_token("first", &json!({ "rel": keys.pk.to_base64(), "api": "https://aiwm.invalid" }));
    world.request.goal = Goal::Enabled;
    world.request.bundle = Some(bundle(&world, "v1.0.0", &file, sign(&keys, &file)));

    let outcome = world.install().await.unwrap();

    let OutcomeKind::Prepared { timings } = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(timings.last().unwrap().step, "enable_unit");
    let unit = world.systemd.unit(UNIT);
    assert_eq!((unit.active_state.as_str(), unit.file_state.as_str()), ("inactive", "enabled"));
    assert!(world.reports().is_empty());
    // Again is nothing; with the controller within reach it is started.
    assert!(
        matches!(world.install().await.unwrap().kind, OutcomeKind::Prepared { timings } if timings.is_empty())
    );
}

#[tokio::test]
async fn a_bundle_that_nobody_vouches_for_is_not_installed() {
    let (keys, other) =
        (KeyPair::generate_unencrypted_keypair().unwrap(), KeyPair::generate_unencrypted_keypair().unwrap());
    let mut world = World::new().await;
    let file = world.change(|server| server.file.clone());
    world.request.goal = Goal::Enabled;
    for (key, signature, code) in [
        (None, sign(&keys, &file), ErrorCode::SignatureMissing),
        (Some(&keys), None, ErrorCode::SignatureMissing),
        (Some(&other), sign(&keys, &file), ErrorCode::SignatureForeign),
        (Some(&keys), sign(&keys, b"another"), ErrorCode::SignatureInvalid),
    ] {
        world.request.release_key = key.map(|keys| keys.pk.to_base64());
        world.request.bundle = Some(bundle(&world, "v1.0.0", &file, signature));
        fails(&world, code).await;
    }
    world.request.bundle = None;
    fails(&world, ErrorCode::Usage).await;
}

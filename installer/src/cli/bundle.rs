//! `aio-worker bundle`: downloads the release that the controller plans, verifies it, and makes one
//! file of it for machines that reach no release server. Changes nothing else, and needs no root.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use aio_host::{files::StagedFile, layout::Layout};
use aio_protocol::{
    error_code::ErrorCode,
    release::{Platform, ReleaseManifest},
};
use clap::Args;
use serde_json::json;

use super::{
    answer::print,
    arguments::ControllerArgs,
    present::{Output, conclude},
    this_machine::interrupted,
};
use crate::{
    console::Console,
    controller::{
        calls::Controller,
        http,
        route::{Route, RouteOptions},
    },
    failure::Failure,
    release::{bundle, download, key, verify::Promise},
    request::unless,
    token,
};

/// Makes one file of the release that the controller plans for a node.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The token may also come from the environment: AIO_NODE_TOKEN. Any node's token will do: the bundle holds the release alone, and is the same for all nodes.\n\n\
Install from it with: aio-worker install --bundle FILE --token … (and --delay-connect where the controller is not reached either).")]
pub struct BundleArgs {
    #[command(flatten)]
    controller: ControllerArgs,

    /// For which machines
    #[arg(long, value_name = "PLATFORM", default_value = "linux-amd64")]
    platform: Platform,

    /// Where to write it, and nothing may be there [default: aio-worker-VERSION-PLATFORM.tar]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Makes a bundle and prints what is in it.
pub async fn run_bundle(args: BundleArgs, output: Output) -> ExitCode {
    let done = async {
        let (path, release) = attempt(args).await?;
        print(&answer(&path, &release, output))
    };
    conclude(done.await, output)
}

fn answer(path: &Path, release: &ReleaseManifest, output: Output) -> String {
    let ReleaseManifest { version, platform, checksum, size, signature } = release;
    let signed = signature.is_some();
    match output {
        Output::Text => {
            let (path, signed) = (path.display(), if signed { "signed" } else { "not signed" });
            format!("{path} holds aio-worker {version} for {platform} ({size} bytes, {checksum}, {signed})\n")
        }
        Output::Json => {
            let answer = json!({ "file": path, "version": version, "platform": platform,
                "size": size, "checksum": checksum, "signed": signed });
            format!("{answer}\n")
        }
    }
}

async fn attempt(args: BundleArgs) -> Result<(PathBuf, ReleaseManifest), Failure> {
    // What a signal ends leaves nothing behind.
    unless(&mut interrupted()?, make(args)).await
}

async fn make(args: BundleArgs) -> Result<(PathBuf, ReleaseManifest), Failure> {
    let BundleArgs { controller: args, platform, file } = args;
    let token = token::parse(&args.token()?, SystemTime::now().into())?;
    let layout = Layout::default();
    let options = RouteOptions {
        ca_file: args.route.ca_file(),
        proxy: args.route.proxy(),
        insecure_http: args.route.insecure_http,
        ..RouteOptions::default()
    };
    let route = Route::to_controller(token.claims(), &options, &layout)?;
    let client = route.client()?;
    let controller = Controller::new(&client, &route.base, &token, token::bearer(&token, &layout))?;
    let plan = controller.plan(platform).await?;
    let release = plan.release();
    let url = http::parse(&plan.download_url, "the plan's download URL", args.route.insecure_http)?;
    let key = key::demanded(args.release_key()?.as_deref(), token.claims().rel.as_deref())?;
    let promise = Promise::of(release.clone(), url.as_str(), key.as_ref())?;

    let to = file.unwrap_or_else(|| format!("aio-worker-{}-{platform}.tar", release.version).into());
    if to.symlink_metadata().is_ok() {
        let message = format!("{} is there already, and is not replaced", to.display());
        return Err(Failure::new(ErrorCode::FileFailed, message).with("path", to.display().to_string()));
    }
    // Vanishes with this function, however it ends.
    let fetched = StagedFile::beside(&to.with_extension("fetch"))?;
    let console = Console::of_this_process();
    console.say(&format!("downloading {} ({} bytes)", url, release.size));
    let received = |bytes| console.downloaded(bytes, release.size);
    let done = download::fetch(&client, &url, &promise, fetched.path(), &console, &received).await;
    console.clear();
    done?;
    bundle::write(&to, &release, fetched.path())?;
    Ok((to, release))
}

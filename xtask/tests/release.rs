//! The folder that `cargo xtask release` writes, of small programs in place of the real ones: what
//! stock tools say of it, and what is refused. That the real ones are built reproducibly takes two
//! builds, which docs/releases.md says how to make.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "the helpers of tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aio_protocol::release::{
    folder::{FolderManifest, SUMS},
    index::{KeyId, ReleaseIndex},
    label,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

const PROGRAMS: [&str; 3] = ["aio-worker", "aio-installer", "controller-stub"];

/// A program that asks for an old C library only, as no ordinary one does that is linked here.
const PROGRAM: &str = "void _exit(int); void _start(void) { _exit(0); }";
const SHIPPED: [&str; 3] = ["-nostartfiles", "-s", "-Wl,--build-id"];

/// Where ELF has the processor, and Arm's number.
const PROCESSOR: usize = 18;
const ARM64: u8 = 183;

struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("programs")).unwrap();
        let world = Self { folder };
        for name in PROGRAMS {
            world.compile(name, PROGRAM, &SHIPPED);
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn compile(&self, name: &str, source: &str, words: &[&str]) {
        let file = self.path("program.c");
        fs::write(&file, source).unwrap();
        let mut cc = Command::new("cc");
        cc.arg(&file).args(words).arg("-o").arg(self.path("programs").join(name));
        succeed(&cc.output().unwrap());
    }

    /// Makes the programs ones for another processor, as far as anybody reads them.
    fn turn_into(&self, processor: u8) {
        for name in PROGRAMS {
            let path = self.path("programs").join(name);
            let mut bytes = fs::read(&path).unwrap();
            bytes[PROCESSOR] = processor;
            fs::write(path, bytes).unwrap();
        }
    }

    fn key(&self, name: &str) -> PathBuf {
        let key = self.path(name);
        let public = key.with_extension("pub");
        let mut make = Command::new("minisign");
        make.args(["-G", "-W", "-s"]).arg(&key).arg("-p").arg(public);
        succeed(&make.output().unwrap());
        key
    }

    fn release(&self, output: &str, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["release", "--version", VERSION, "--allow-dirty", "--programs"]);
        command.arg(self.path("programs")).arg("--output").arg(self.path(output)).args(words);
        command.output().unwrap()
    }

    /// Signs an index of what lies in `output`, with the key of that name.
    fn sign_index(&self, output: &str, key: &str, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["release", "--index", "--key"]).arg(self.path(key));
        command.arg("--output").arg(self.path(output)).args(words).output().unwrap()
    }

    fn index_refused(&self, output: &str, key: &str, words: &[&str], why: &str) {
        let before = snapshot(&self.path(output));
        let refused = self.sign_index(output, key, words);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{said}");
        assert_eq!(snapshot(&self.path(output)), before, "something has changed");
    }

    /// What `minisign` says of the signature of the index, under the key of that name.
    fn comment(&self, output: &str, key: &str) -> String {
        let mut verify = Command::new("minisign");
        verify.args(["-V", "-Q", "-m", "index.json", "-p"]).arg(self.path(key).with_extension("pub"));
        let verified = verify.current_dir(self.path(output)).output().unwrap();
        succeed(&verified);
        String::from_utf8(verified.stdout).unwrap().trim().to_owned()
    }

    fn key_id(&self, name: &str) -> String {
        let public = fs::read_to_string(self.path(name).with_extension("pub")).unwrap();
        KeyId::of_public_key(public.lines().nth(1).unwrap()).unwrap().to_string()
    }

    /// A version that is there since long ago, as far as an index reads it, signed with the key of that name.
    fn earlier(&self, tree: &str, version: &str, key: &str) {
        let place = self.path(tree).join(version);
        fs::create_dir_all(&place).unwrap();
        let manifest = format!("{{\"version\":\"{version}\"}}");
        fs::write(place.join("manifest.json"), &manifest).unwrap();
        fs::write(place.join(SUMS), format!("{}  manifest.json\n", sha256(manifest.as_bytes()))).unwrap();
        let comment = label::comment(&version.parse().unwrap(), SUMS);
        let mut sign = Command::new("minisign");
        sign.args(["-S", "-t", &comment, "-s"]).arg(self.path(key)).arg("-m").arg(place.join(SUMS));
        succeed(&sign.output().unwrap());
    }

    fn refused(&self, output: &str, words: &[&str], why: &str) {
        let before = snapshot(&self.path(output));
        let refused = self.release(output, words);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{said}");
        assert_eq!(snapshot(&self.path(output)), before, "something has changed");
    }
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn sums_hold(folder: &Path) {
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder);
    succeed(&check.output().unwrap());
}

/// Every file below a folder with its bytes.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else {
            found.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn manifest(folder: &Path) -> FolderManifest {
    serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap()
}

fn index(tree: &Path) -> ReleaseIndex {
    serde_json::from_slice(&fs::read(tree.join("index.json")).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names of the worker's units, as the repository has them.
fn units() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("aio-worker")).collect()
}

#[test]
fn a_release_is_what_stock_tools_verify_and_the_same_bytes_every_time() {
    let world = World::new();
    let key = world.key("release.key");
    let words = ["--key", key.to_str().unwrap()];
    succeed(&world.release("one", &words));
    succeed(&world.release("two", &words));
    let folder = world.path("one").join(VERSION);
    assert_eq!(snapshot(&folder), snapshot(&world.path("two").join(VERSION)));

    let manifest = manifest(&folder);
    let platform = *manifest.platforms.keys().next().unwrap();
    let (worker, installer) = (platform.to_string(), format!("aio-installer-{platform}"));
    let mut names: Vec<_> =
        snapshot(&folder).into_iter().map(|(name, _)| name.display().to_string()).collect();
    names.sort();
    let mut expected = ["SHA256SUMS", "SHA256SUMS.minisig", "THIRD-PARTY-LICENSES", "manifest.json"]
        .map(str::to_owned)
        .to_vec();
    for name in [&worker, &installer] {
        expected.extend([name.clone(), format!("{name}.minisig")]);
    }
    expected.push(format!("controller-stub-{platform}"));
    expected.extend(units());
    expected.sort();
    assert_eq!(names, expected);
    let built = fs::read(world.path("programs").join("aio-worker")).unwrap();
    assert_eq!(fs::read(folder.join(&worker)).unwrap(), built);
    assert_eq!(manifest.files[&worker].size, built.len() as u64);
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    assert_eq!(manifest.release_key.as_deref(), public.lines().nth(1));

    sums_hold(&folder);
    for name in [&*worker, &*installer, "SHA256SUMS"] {
        let mut verify = Command::new("minisign");
        verify.args(["-V", "-Q", "-m", name, "-p"]).arg(key.with_extension("pub")).current_dir(&folder);
        let verified = verify.output().unwrap();
        succeed(&verified);
        let comment = String::from_utf8_lossy(&verified.stdout);
        assert_eq!(comment.trim(), format!("file:{name} version:{VERSION}"));
    }
    let service = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/aio-worker.service");
    assert_eq!(fs::read(folder.join("aio-worker.service")).unwrap(), fs::read(service).unwrap());
    world.refused("one", &words, "a release never changes");
}

#[test]
fn another_platform_of_the_same_commit_is_added_and_nothing_else() {
    let world = World::new();
    let key = world.key("release.key");
    let words = ["--key", key.to_str().unwrap(), "--add"];
    world.refused("tree", &words, "leave --add out");
    succeed(&world.release("tree", &words[..2]));
    let before = snapshot(&world.path("tree"));
    world.refused("tree", &words, "already");

    world.turn_into(ARM64);
    let other = world.key("other.key");
    let other = ["--key", other.to_str().unwrap(), "--add", "--lost-key"];
    world.refused("tree", &other[..3], "has not named this one");
    world.refused("tree", &other, "release key");
    let public = key.with_extension("pub");
    world.refused("tree", &["--public-key", public.to_str().unwrap(), "--add"], "is signed");
    succeed(&world.release("tree", &words));
    let folder = world.path("tree").join(VERSION);
    assert_eq!(manifest(&folder).platforms.len(), 2);
    let after = snapshot(&world.path("tree"));
    let changing = ["manifest.json", "SHA256SUMS", "SHA256SUMS.minisig", "index.json", "index.json.minisig"];
    for file in before.iter().filter(|(path, _)| !changing.iter().any(|name| path.ends_with(name))) {
        assert!(after.contains(file), "{} has changed", file.0.display());
    }
    assert_eq!(after.len(), before.len() + 5, "three programs, and the signatures of those that nodes fetch");
    sums_hold(&folder);
    assert_eq!(fs::read_dir(world.path("tree")).unwrap().count(), 3, "the folder from before is left");
    let index = index(&world.path("tree"));
    assert_eq!((index.serial, index.releases.len()), (2, 1));
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(index.releases[&VERSION.parse().unwrap()].manifest_sha256.hex(), sha256(&manifest));
}

#[test]
fn a_key_with_a_password_signs_when_the_password_comes_on_standard_input() {
    let world = World::new();
    let key = world.path("release.key");
    let with_input = |command: &mut Command, text: &str| {
        let input = world.path("input");
        fs::write(&input, text).unwrap();
        command.stdin(fs::File::open(input).unwrap()).output().unwrap()
    };
    let mut make = Command::new("minisign");
    make.args(["-G", "-s"]).arg(&key).arg("-p").arg(key.with_extension("pub"));
    succeed(&with_input(&mut make, "secret\nsecret\n"));
    let release = |output: &str, text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["release", "--version", VERSION, "--allow-dirty", "--programs"]);
        command.arg(world.path("programs")).arg("--output").arg(world.path(output)).arg("--key").arg(&key);
        with_input(&mut command, text)
    };
    succeed(&release("tree", "secret\n"));
    assert!(world.path("tree").join(VERSION).join("SHA256SUMS.minisig").is_file());
    assert!(!release("none", "").status.success());
    assert!(snapshot(&world.path("none")).is_empty());
}

#[test]
fn what_is_not_fit_to_be_shipped_is_no_release() {
    let world = World::new();
    let other = ["release", "--version", "v99.0.0"];
    let refused = Command::new(env!("CARGO_BIN_EXE_xtask")).args(other).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("write its number as `version` into the root Cargo.toml"),
        "{said}"
    );

    // A C library of a version to come, as far as a linker looks.
    let (library, map) = (world.path("programs").join("libfuture.so"), world.path("map"));
    fs::write(&map, "GLIBC_2.99 { global: future; };").unwrap();
    let script = format!("-Wl,--version-script={}", map.display());
    world.compile("libfuture.so", "void future(void) {}", &["-shared", "-Wl,-soname=libc.so.6", &script]);
    let library = library.to_str().unwrap();
    let newer = "void future(void); void _start(void) { future(); }";
    for (source, words, why) in [
        (PROGRAM, ["-nostartfiles", "-g", "-Wl,--build-id"].as_slice(), "has symbols"),
        (PROGRAM, &["-nostartfiles", "-s", "-Wl,--build-id=none"], "has no build id"),
        (
            newer,
            &["-nostdlib", "-s", "-Wl,--build-id", library],
            "asks for glibc 2.99, and Debian 11 has 2.31",
        ),
    ] {
        world.compile("aio-installer", source, words);
        world.refused("tree", &[], why);
    }
    fs::write(world.path("programs").join("aio-worker"), "#!/bin/sh\n").unwrap();
    world.refused("tree", &[], "is no program for any platform");
    fs::remove_file(world.path("programs").join("aio-worker")).unwrap();
    world.refused("tree", &[], "cannot read the program");
    world.refused("tree", &["--public-key", "no key"], "neither a public key of minisign nor its file");
}

#[test]
fn the_index_names_what_believed_keys_have_signed_and_keeps_what_it_said() {
    let world = World::new();
    let key = world.key("release.key");
    world.key("stranger.key");
    world.earlier("tree", "v0.8.0", "release.key");
    world.earlier("tree", "v0.9.0", "release.key");
    world.earlier("tree", "v0.9.1", "stranger.key");
    world.earlier("tree", "v0.9.2", "release.key");
    fs::write(world.path("tree/v0.9.2/manifest.json"), "{}").unwrap();
    fs::create_dir_all(world.path("tree/v0.9.3")).unwrap();
    let words = ["--key", key.to_str().unwrap(), "--floor", "v0.9.0", "--oldest-from", "v0.9.0"];
    let made = world.release("tree", &words);
    succeed(&made);
    let said = String::from_utf8_lossy(&made.stderr);
    for version in ["v0.9.1", "v0.9.2", "v0.9.3"] {
        assert!(said.contains(&format!("{version} is not in the index: ")), "{said}");
    }
    let first = index(&world.path("tree"));
    let versions: Vec<_> = first.releases.keys().map(ToString::to_string).collect();
    assert_eq!(versions, ["v0.9.0", VERSION]);
    assert_eq!(first.expires_at.since(first.issued_at).as_secs(), 30 * 86_400);
    assert_eq!(world.comment("tree", "release.key"), "file:index.json serial:1");

    succeed(&world.sign_index("tree", "release.key", &[]));
    let second = index(&world.path("tree"));
    assert_eq!(world.comment("tree", "release.key"), "file:index.json serial:2");
    assert_eq!((second.floor, second.releases), (first.floor, first.releases));
    world.index_refused("tree", "release.key", &["--floor", "v0.8.0"], "never falls");
    world.index_refused("tree", "release.key", &["--floor", "v99.0.0"], "no version would be left");
    let id = world.key_id("release.key");
    world.index_refused("tree", "release.key", &["--revoke", &id], "signs no index");
    world.index_refused("tree", "stranger.key", &[], "has not named this one");
    let leftovers = fs::read_dir(world.path("tree")).unwrap();
    let leftovers =
        leftovers.filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'));
    assert_eq!(leftovers.count(), 0);

    let text = fs::read_to_string(world.path("tree/index.json")).unwrap();
    fs::write(world.path("tree/index.json"), text.replace("\"serial\": 2", "\"serial\": 1")).unwrap();
    world.index_refused("tree", "release.key", &[], "is not as it was signed");
}

/// The commands of docs/releases.md that begin with these words, as they stand there.
fn documented(begin: &str) -> &'static str {
    let page = include_str!("../../docs/releases.md");
    let mut blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or(block));
    blocks.find(|block| block.starts_with(begin)).unwrap_or_else(|| panic!("no commands begin with {begin}"))
}

impl World {
    /// Does what the page says, in this folder, with keys that have no password and programs that are there.
    fn follow(&self, begin: &str) {
        let commands = documented(begin).replace("minisign -G", "minisign -G -W").replace("v1.0.0", VERSION);
        let functions = format!(
            "cargo() {{ shift 2; case $1 in --version) set -- --allow-dirty --programs programs \"$@\" ;; esac; {} release \"$@\"; }}\n",
            env!("CARGO_BIN_EXE_xtask")
        );
        let mut shell = Command::new("sh");
        shell.args(["-euc", &format!("{functions}{commands}")]).current_dir(self.folder.path());
        succeed(&shell.output().unwrap());
    }
}

#[test]
fn a_key_is_rotated_revoked_and_lost_as_the_page_says() {
    let world = World::new();
    world.key("release.key");
    world.earlier("releases", "v0.9.0", "release.key");
    succeed(&world.sign_index("releases", "release.key", &[]));

    world.follow("minisign -G -s next.key");
    assert_eq!(world.comment("releases", "release.key"), "file:index.json serial:2");
    let named = index(&world.path("releases")).keys;
    world.follow("cargo xtask release --version v1.0.0 --key next.key");
    assert_eq!(world.comment("releases", "next.key"), "file:index.json serial:3");
    let both = index(&world.path("releases"));
    assert_eq!((both.keys.len(), &both.keys, both.releases.len()), (2, &named, 2), "either key is believed");

    world.follow("cargo xtask release --index --key next.key --revoke");
    let revoked = index(&world.path("releases"));
    let versions: Vec<_> = revoked.releases.keys().map(ToString::to_string).collect();
    assert_eq!(versions, [VERSION], "v0.9.0 was signed with the old key alone");
    assert!(revoked.revoked.iter().any(|id| id.to_string() == world.key_id("release.key")));
    world.index_refused("releases", "release.key", &[], "has not named this one");
    world.index_refused("releases", "release.key", &["--lost-key"], "revoked");

    world.earlier("releases", "v0.9.0", "next.key");
    succeed(&world.sign_index("releases", "next.key", &[]));
    assert_eq!(index(&world.path("releases")).releases.len(), 2, "it was signed again");

    for name in ["next.key", "next.pub"] {
        fs::remove_file(world.path(name)).unwrap();
    }
    world.follow("minisign -G -s new.key");
    assert_eq!(world.comment("releases", "new.key"), "file:index.json serial:6");
    assert_eq!(index(&world.path("releases")).releases.len(), 2, "what is signed is worth what it was");
}

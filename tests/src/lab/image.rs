//! Root file systems: made once per suite, kept, and never written to again (a machine's own writes
//! go to an overlay). Decides what is installed in every machine; a changed recipe makes a new
//! image.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// What a machine has beyond the packages that are essential anyway.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates,curl,iproute2,faketime";

/// What machines have beside that on which other tools work: Ansible and cloud-init, nginx in front
/// of a controller, needrestart after upgrades.
const PROVISIONING_PACKAGES: &str = "python3,python3-apt,cloud-init,nginx,needrestart";

/// cloud-init touches no network here, asks no cloud, makes no locale and no keys of an ssh that is
/// not there, and does nothing at all before a test takes the file away that says so. nginx waits
/// for whoever wants it: several machines share one port 80.
const PROVISIONING_HOOK: &str = r#"printf 'network: {config: disabled}\ndatasource_list: [NoCloud]\nlocale: false\nssh_genkeytypes: []\n' >"$1/etc/cloud/cloud.cfg.d/90_lab.cfg" && touch "$1/etc/cloud/cloud-init.disabled" && chroot "$1" systemctl disable nginx.service"#;

/// What a machine is fitted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fittings {
    /// What every machine has.
    Plain,
    /// Python, cloud-init and nginx, too.
    Provisioning,
}

/// A machine under test does nothing by itself: these would write to its disk at random times.
const TIMERS: &str = "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer systemd-tmpfiles-clean.timer";

/// Which distribution a machine runs: a suite of Debian (or Ubuntu, with its mirror).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suite {
    name: String,
    mirror: Option<String>,
}

impl Suite {
    /// `AIO_LAB_SUITE` (default `bookworm`) from `AIO_LAB_MIRROR` (default: the suite's own).
    fn from_environment() -> Result<Self> {
        let name = std::env::var("AIO_LAB_SUITE").unwrap_or_else(|_| "bookworm".to_owned());
        ensure!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
            "AIO_LAB_SUITE is `{name}`, which names no suite"
        );
        Ok(Self { name, mirror: std::env::var("AIO_LAB_MIRROR").ok().filter(|mirror| !mirror.is_empty()) })
    }

    /// What the root file system with these fittings is called.
    fn image(&self, fittings: Fittings) -> String {
        match fittings {
            Fittings::Plain => self.name.clone(),
            Fittings::Provisioning => format!("{}-provisioning", self.name),
        }
    }

    /// The arguments of `mmdebstrap`, the target left out.
    fn recipe(&self, fittings: Fittings) -> Vec<String> {
        let mut recipe = vec![
            "--variant=minbase".to_owned(),
            format!("--include={PACKAGES}"),
            "--format=directory".to_owned(),
            // The index of Debian testing counts for a week, and a mirror may lag behind.
            "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned(),
            format!("--customize-hook=chroot \"$1\" systemctl mask {TIMERS}"),
            // The machine's name is given when it boots, not copied from the host that built the image.
            "--customize-hook=rm -f \"$1/etc/hostname\"".to_owned(),
        ];
        if fittings == Fittings::Provisioning {
            recipe.push(format!("--include={PROVISIONING_PACKAGES}"));
            recipe.push(format!("--customize-hook={PROVISIONING_HOOK}"));
        }
        recipe.push(self.name.clone());
        recipe
    }
}

/// The root file system of the suite that the environment names; made now if it is not there.
pub(super) fn root_file_system(lab: &Path, fittings: Fittings) -> Result<PathBuf> {
    let suite = Suite::from_environment()?;
    let name = suite.image(fittings);
    let image = lab.join(&name);
    let recipe_file = lab.join(format!("{name}.recipe"));
    let recipe = format!("{:?} {:?}", suite.recipe(fittings), suite.mirror);
    let lock = lab.join(format!("{name}.lock"));
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    lock.lock().context("cannot lock the image")?;
    if image.is_dir() && fs::read_to_string(&recipe_file).is_ok_and(|made| made == recipe) {
        return Ok(image);
    }
    let unfinished = lab.join(format!("{name}.unfinished"));
    for old in [&unfinished, &image] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", old.display()));
            }
            _ => {}
        }
    }
    make(&suite, fittings, &unfinished, &lab.join(format!("{name}.log")))?;
    fs::rename(&unfinished, &image).with_context(|| format!("cannot put {} in place", image.display()))?;
    fs::write(&recipe_file, recipe).with_context(|| format!("cannot write {}", recipe_file.display()))?;
    Ok(image)
}

fn make(suite: &Suite, fittings: Fittings, target: &Path, log_path: &Path) -> Result<()> {
    let log = File::create(log_path).with_context(|| format!("cannot create {}", log_path.display()))?;
    eprintln!("lab: making the root file system {} (once)", target.display());
    let status = Command::new("mmdebstrap")
        .args(suite.recipe(fittings))
        .arg(target)
        .args(&suite.mirror)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("cannot run mmdebstrap")?;
    if !status.success() {
        let log = fs::read_to_string(log_path).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("mmdebstrap ended with {status}; its log {} ends:\n{}", log_path.display(), tail.join("\n"));
    }
    Ok(())
}

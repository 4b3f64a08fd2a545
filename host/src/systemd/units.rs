//! Which services of a machine matter to the worker, and what systemd's words for a unit mean for a
//! person who asks whether its service works. Pure: what the manager says comes in, a service goes
//! out. How it is asked is `watch`'s.

use aio_protocol::{
    service::{Service, ServiceState},
    time::Timestamp,
};

use crate::layout;

/// A unit that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched {
    /// The unit's full name.
    pub(crate) name: &'static str,
    /// Whether it is told of where there is none: its absence says something. What is but another
    /// way to have the same is not.
    pub(crate) always: bool,
    /// The packages that bring its program; the version of the one that is installed is the service's.
    pub(crate) packages: &'static [&'static str],
}

/// All of them. A new one costs every machine three match rules on its bus.
pub(crate) const WATCHED: [Watched; 7] = [
    Watched { name: DOCKER, always: true, packages: &["docker-ce", "docker.io", "moby-engine"] },
    Watched { name: SNAP_DOCKER, always: false, packages: &[] },
    Watched { name: CONTAINERD, always: true, packages: &["containerd.io", "containerd", "moby-containerd"] },
    Watched { name: PODMAN, always: false, packages: &["podman"] },
    Watched { name: "nvidia-persistenced.service", always: true, packages: &[] },
    Watched { name: "nvidia-fabricmanager.service", always: true, packages: &[] },
    Watched { name: layout::UNIT, always: true, packages: &[] },
];

/// Docker, as a Debian package or Docker's own brings it.
pub(crate) const DOCKER: &str = "docker.service";
/// Docker, as the snap brings it.
pub(crate) const SNAP_DOCKER: &str = "snap.docker.dockerd.service";
/// containerd, which Docker's packages bring too.
pub(crate) const CONTAINERD: &str = "containerd.service";
/// Podman needs no daemon: that it is to be reached is its socket's doing.
pub(crate) const PODMAN: &str = "podman.socket";

/// What the manager says of a unit that it has in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// `loaded`, `not-found`, `masked`, …
    pub(crate) load_state: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, …
    pub(crate) active_state: String,
    /// `running`, `dead`, `auto-restart`, …
    pub(crate) sub_state: String,
    /// `success`, `exit-code`, `watchdog`, …; empty of what is no service.
    pub(crate) result: String,
    /// How often systemd has restarted it by itself; none of what is no service.
    pub(crate) restarts: Option<u32>,
    /// When it became active, inactive, and whatever it is, in microseconds of the wall clock; 0
    /// where it never did.
    pub(crate) active_since: u64,
    /// See above.
    pub(crate) inactive_since: u64,
    /// See above.
    pub(crate) changed: u64,
}

/// What the manager says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is in memory.
    Loaded(Loaded),
    /// It is not; this is the state of its file (`enabled`, `disabled`, `masked`, …), empty where
    /// there is none.
    File(String),
}

/// How the service of this unit stands.
pub(crate) fn service(name: &str, told: &Told) -> Service {
    let service = Service::unknown(name);
    match told {
        Told::File(state) => Service { state: of_file(state), ..service },
        Told::Loaded(unit) => {
            let state = state(unit);
            let micros = match state {
                // The daemon that asks is this unit's: it runs, and is as old as itself.
                _ if name == layout::UNIT => 0,
                ServiceState::Active => unit.active_since,
                ServiceState::Inactive => unit.inactive_since,
                ServiceState::Activating | ServiceState::Failed => unit.changed,
                ServiceState::Masked | ServiceState::Absent | ServiceState::Unknown => 0,
            };
            let since = i64::try_from(micros / 1000).ok().filter(|millis| *millis > 0);
            let known = !matches!(state, ServiceState::Masked | ServiceState::Absent);
            Service {
                state: own(name, state),
                restarts: unit.restarts.filter(|_| known),
                since: since.map(Timestamp::from_millis),
                ..service
            }
        }
    }
}

/// The asking daemon runs, whatever systemd still waits for.
fn own(name: &str, state: ServiceState) -> ServiceState {
    if name == layout::UNIT && state == ServiceState::Activating { ServiceState::Active } else { state }
}

fn of_file(state: &str) -> ServiceState {
    match state {
        "" | "not-found" => ServiceState::Absent,
        masked if masked.starts_with("masked") => ServiceState::Masked,
        _ => ServiceState::Inactive,
    }
}

fn state(unit: &Loaded) -> ServiceState {
    match unit.active_state.as_str() {
        "active" | "reloading" | "refreshing" => ServiceState::Active,
        "failed" => ServiceState::Failed,
        // Between an end with an error and the next try a service is as good as failed;
        // "activating" would hide a crash loop.
        "activating" if unit.sub_state.starts_with("auto-restart") && unit.result != "success" => {
            ServiceState::Failed
        }
        "activating" => ServiceState::Activating,
        "inactive" | "deactivating" | "maintenance" => match unit.load_state.as_str() {
            "not-found" => ServiceState::Absent,
            "masked" => ServiceState::Masked,
            _ => ServiceState::Inactive,
        },
        _ => ServiceState::Unknown,
    }
}

/// Of all watched services, those that there is something to say of.
pub(crate) fn worth_telling(services: Vec<Service>) -> Vec<Service> {
    let always = |name: &str| WATCHED.iter().any(|watched| watched.always && watched.name == name);
    services
        .into_iter()
        .filter(|service| service.state != ServiceState::Absent || always(&service.name))
        .collect()
}

/// What is told while nobody can be asked.
pub(crate) fn unknown() -> Vec<Service> {
    WATCHED.iter().filter(|watched| watched.always).map(|watched| Service::unknown(watched.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(active: &str, sub: &str, result: &str) -> Loaded {
        Loaded {
            load_state: "loaded".into(),
            active_state: active.into(),
            sub_state: sub.into(),
            result: result.into(),
            restarts: Some(2),
            active_since: 10_000_000,
            inactive_since: 20_000_000,
            changed: 30_000_000,
        }
    }

    #[test]
    fn a_units_words_mean_what_an_operator_would_say() {
        use ServiceState::{Absent, Activating, Active, Failed, Inactive, Masked, Unknown};
        for (active, sub, result, state, since) in [
            ("active", "running", "success", Active, Some(10_000)),
            ("reloading", "reload", "success", Active, Some(10_000)),
            ("activating", "start", "success", Activating, Some(30_000)),
            ("activating", "auto-restart", "exit-code", Failed, Some(30_000)),
            ("activating", "auto-restart", "success", Activating, Some(30_000)),
            ("failed", "failed", "signal", Failed, Some(30_000)),
            ("inactive", "dead", "success", Inactive, Some(20_000)),
            ("deactivating", "stop-sigterm", "success", Inactive, Some(20_000)),
            ("dreaming", "", "", Unknown, None),
        ] {
            let service = service(DOCKER, &Told::Loaded(loaded(active, sub, result)));
            let told = (service.state, service.since.map(Timestamp::as_millis), service.restarts);
            assert_eq!(told, (state, since, Some(2)), "{active} {sub} {result}");
        }
        for (load, state) in [("not-found", Absent), ("masked", Masked)] {
            let unit = Loaded { load_state: load.into(), ..loaded("inactive", "dead", "success") };
            let service = service(DOCKER, &Told::Loaded(unit));
            assert_eq!((service.state, service.since, service.restarts), (state, None, None));
        }
    }

    #[test]
    fn a_unit_that_is_not_in_memory_is_what_its_file_says() {
        for (file, state) in [
            ("", ServiceState::Absent),
            ("enabled", ServiceState::Inactive),
            ("static", ServiceState::Inactive),
            ("masked-runtime", ServiceState::Masked),
        ] {
            let expected = Service { state, ..Service::unknown(DOCKER) };
            assert_eq!(service(DOCKER, &Told::File(file.into())), expected, "{file}");
        }
    }

    #[test]
    fn the_asking_daemons_own_unit_does_not_change_while_it_starts_and_reloads() {
        let told = ["activating", "active", "reloading"].map(|active| {
            let changed = Loaded { changed: active.len() as u64, ..loaded(active, "start", "success") };
            service(layout::UNIT, &Told::Loaded(changed))
        });
        let restarts = Some(2);
        let expected =
            Service { state: ServiceState::Active, restarts, ..Service::unknown("aio-worker.service") };
        assert_eq!(told, [expected.clone(), expected.clone(), expected]);
    }

    #[test]
    fn of_what_is_absent_only_that_is_told_which_an_operator_would_miss() {
        let absent = |name: &str| Service { state: ServiceState::Absent, ..Service::unknown(name) };
        let all = WATCHED.iter().map(|watched| absent(watched.name)).collect();
        let told: Vec<_> = worth_telling(all).into_iter().map(|service| service.name).collect();
        let expected = [
            "docker.service",
            "containerd.service",
            "nvidia-persistenced.service",
            "nvidia-fabricmanager.service",
            "aio-worker.service",
        ];
        assert_eq!(told, expected);
        let active = Service { state: ServiceState::Active, ..absent(PODMAN) };
        assert_eq!(worth_telling(vec![active.clone()]), [active]);
    }
}

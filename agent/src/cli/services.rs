//! The machine's services as a screen shows them: in one line, what does not work with how it stands. Pure.

use aio_host::layout;
use aio_protocol::service::{Service, ServiceState};

use super::paint::{Tone, paint};

/// All that are there but the worker, which is what speaks; none where there is nothing to say.
pub(super) fn line(services: &[Service]) -> Option<String> {
    let others = services.iter().filter(|service| service.name != layout::UNIT);
    let (unknown, known): (Vec<_>, Vec<_>) = others
        .filter(|service| service.state != ServiceState::Absent)
        .partition(|service| service.state == ServiceState::Unknown);
    if known.is_empty() {
        return (!unknown.is_empty()).then(|| paint(Tone::Faint, "unknown: systemd does not say"));
    }
    let told: Vec<_> = known.into_iter().chain(unknown).map(words).collect();
    Some(told.join(", "))
}

fn words(service: &Service) -> String {
    let name = service.name.trim_end_matches(".service");
    let (tone, state) = match service.state {
        ServiceState::Active => {
            return match &service.version {
                Some(version) => format!("{name} {version}"),
                None => name.to_owned(),
            };
        }
        ServiceState::Activating => (Tone::Doubtful, "starting".to_owned()),
        ServiceState::Inactive => (Tone::Faint, "inactive".to_owned()),
        ServiceState::Masked => (Tone::Faint, "masked".to_owned()),
        ServiceState::Failed => (Tone::Bad, failed(service.restarts)),
        ServiceState::Absent | ServiceState::Unknown => (Tone::Faint, "unknown".to_owned()),
    };
    format!("{name} {}", paint(tone, &state))
}

fn failed(restarts: Option<u32>) -> String {
    match restarts {
        None | Some(0) => "failed".to_owned(),
        Some(1) => "failed (1 restart)".to_owned(),
        Some(restarts) => format!("failed ({restarts} restarts)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, state: ServiceState) -> Service {
        Service { state, ..Service::unknown(name) }
    }

    #[test]
    fn what_works_is_a_name_and_what_does_not_says_so() {
        let services = [
            Service { version: Some("24.0.7".into()), ..service("docker.service", ServiceState::Active) },
            service("podman.socket", ServiceState::Active),
            service("containerd.service", ServiceState::Absent),
            service("nvidia-persistenced.service", ServiceState::Inactive),
            Service { restarts: Some(3), ..service("nvidia-fabricmanager.service", ServiceState::Failed) },
            service("aio-worker.service", ServiceState::Active),
        ];
        assert_eq!(
            line(&services).as_deref(),
            Some(
                "docker 24.0.7, podman.socket, nvidia-persistenced inactive, nvidia-fabricmanager failed (3 restarts)"
            )
        );
    }

    #[test]
    fn nothing_there_is_no_line_and_a_silent_systemd_is_one() {
        let worker = service("aio-worker.service", ServiceState::Active);
        assert_eq!(line(&[service("docker.service", ServiceState::Absent), worker]), None);
        let silent = line(&[Service::unknown("docker.service")]);
        assert_eq!(silent.as_deref(), Some("unknown: systemd does not say"));
    }
}

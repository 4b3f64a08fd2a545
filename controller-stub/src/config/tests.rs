use super::*;

fn problem(change: impl FnOnce(&mut Settings)) -> String {
    let mut settings = Settings::default();
    change(&mut settings);
    let error = Config::check("data", settings).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConfigInvalid);
    error.to_string()
}

#[test]
fn what_is_not_set_is_built_in() {
    let config = Config::check("data", Settings::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3305");
    assert_eq!(config.heartbeat_timeout, Duration::from_secs(120));
    assert_eq!(config.default_daemon_version.to_string(), "v1.0.0");
}

#[test]
fn the_package_s_sample_is_a_configuration_as_it_is_and_with_every_key_that_it_shows() {
    let sample = include_str!("../../../packaging/deb/aio-controller-stub/config.toml");
    let shown: String = sample
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
                .unwrap_or(line)
        })
        .filter(|line| !line.starts_with("tls_self_signed") && !line.starts_with("release_public_key"))
        .map(|line| format!("{line}\n"))
        .collect();
    for text in [sample, &shown] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config =
            Config::check("data", Settings::gather(Some(file.path()), |_| None, toml::Table::new()).unwrap())
                .unwrap();
        assert_eq!(config.releases.unwrap().to_str(), Some("/var/lib/aio-controller-stub/releases"));
    }
    assert!(shown.contains("\nlisten = \"0.0.0.0:3305\"\n"), "{shown}");
}

#[test]
fn durations_are_written_as_people_write_them() {
    for (text, millis) in [
        ("120s", 120_000),
        ("2m", 120_000),
        ("500ms", 500),
        ("1h 30m", 5_400_000),
        ("120", 120_000),
        (" 1.5 ", 1_500),
    ] {
        assert_eq!(heartbeat_timeout(text).unwrap(), Duration::from_millis(millis), "{text}");
    }
    for text in ["", ".", "0", "1.2.3", "0s", "-5s", "25h", "soon"] {
        assert!(heartbeat_timeout(text).is_err(), "{text}");
    }
}

#[test]
fn an_impossible_value_is_named() {
    let set = |text: &str| Some(text.to_owned());
    assert!(problem(|it| it.listen = set("3305")).starts_with("LISTEN "));
    assert!(problem(|it| it.public_url = set("aiwm.example")).starts_with("PUBLIC_URL "));
    assert!(problem(|it| it.public_url = set("ftp://aiwm.example")).starts_with("PUBLIC_URL "));
    assert!(problem(|it| it.noti_service_url = set("http://a/?x=1")).starts_with("NOTI_SERVICE_URL "));
    for user in ["http://localhost@evil.example", "https://user@noti.example", "https://:word@noti.example"] {
        let problem = problem(|it| it.noti_service_url = set(user));
        assert!(problem.starts_with("NOTI_SERVICE_URL must not have a user"), "{problem}");
    }
    assert!(problem(|it| it.default_daemon_version = set("latest")).contains("a version such as v1.0.0"));
    assert!(problem(|it| it.api_requests_per_second = set("-1")).starts_with("API_REQUESTS_PER_SECOND "));
    assert!(problem(|it| it.trusted_proxies = set("10.0.0.0/33")).starts_with("TRUSTED_PROXIES "));
    assert!(problem(|it| it.trusted_proxies = set("10.0.0.1, proxy")).contains("`proxy`"));
    assert!(problem(|it| it.tls_cert = set("chain.pem")).starts_with("TLS_KEY "));
    assert!(problem(|it| it.noti_client_key_file = set("k.pem")).starts_with("NOTI_CLIENT_CERT_FILE "));
    assert!(problem(|it| it.insecure_http = set("maybe")).starts_with("INSECURE_HTTP "));
    let both = |it: &mut Settings| {
        (it.tls_cert, it.tls_key, it.tls_self_signed) = (set("c"), set("k"), set("true"));
    };
    assert!(problem(both).starts_with("TLS_SELF_SIGNED "));
    let clear = |it: &mut Settings| (it.tls_self_signed, it.public_url) = (set("true"), set("http://a"));
    assert!(problem(clear).starts_with("PUBLIC_URL "));
    let one = "RWS3h4wX0DMEigsEt8UHs02qDkYnXMMM5UXfNwQoGsiwYOO6YVwvP5EJ";
    for keys in ["RWQ".to_owned(), format!("{one}, RWQ")] {
        assert!(problem(|it| it.release_public_key = Some(keys)).starts_with("RELEASE_PUBLIC_KEY "));
    }
    let other = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let several = Some(format!("{one},\n {other} {one}\n"));
    let settings = Settings { release_public_key: several, ..Settings::default() };
    assert_eq!(Config::check("data", settings).unwrap().release_public_keys, [one, other]);
}

#[test]
fn switches_lists_and_names_are_written_as_people_write_them() {
    let set = |text: &str| Some(text.to_owned());
    for (text, on) in [
        ("True", true),
        ("yes", true),
        ("1", true),
        ("ON ", true),
        ("False", false),
        ("no", false),
        ("0", false),
        ("off", false),
    ] {
        let settings = Settings { insecure_http: set(text), ..Settings::default() };
        assert_eq!(Config::check("data", settings).unwrap().insecure_http, on, "{text}");
    }
    let settings = Settings { trusted_proxies: set("10.0.0.1, ,10.1.0.0/16,"), ..Settings::default() };
    assert_eq!(Config::check("data", settings).unwrap().trusted_proxies.len(), 2);
    let mapped = "::ffff:127.0.0.1, ::ffff:10.0.0.0/104, ::1, ::ffff:0:0/90";
    let settings = Settings { trusted_proxies: set(mapped), ..Settings::default() };
    let networks: Vec<_> =
        Config::check("data", settings).unwrap().trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["127.0.0.1/32", "10.0.0.0/8", "::1/128", "::ffff:0.0.0.0/90"]);
    let settings = Settings { listen: set("localhost:3305"), ..Settings::default() };
    let listen = Config::check("data", settings).unwrap().listen;
    assert!(listen.ip().is_loopback() && listen.port() == 3305, "{listen}");
    for text in ["localhost", "localhost:", "localhost:70000", ":3305", "no such name:1", ""] {
        assert!(problem(|it| it.listen = set(text)).starts_with("LISTEN "), "{text}");
    }
}

#[test]
fn events_are_kept_for_days_and_never_for_less_than_their_senders_repeat_them() {
    for (text, hours) in [("30d", 720), ("1d", 24), ("36h", 36), ("1w", 168)] {
        assert_eq!(
            retention("EVENT_RETENTION", text, RETENTIONS).unwrap(),
            Duration::from_secs(hours * 3600),
            "{text}"
        );
    }
    for text in ["", "23h", "-30d", "1y", "20y", "ever"] {
        assert!(retention("EVENT_RETENTION", text, RETENTIONS).is_err(), "{text}");
    }
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let settings = Settings {
        dashboard_origins: Some("https://Dash.example:443, http://localhost:5173/,".into()),
        ..Settings::default()
    };
    let config = Config::check("data", settings).unwrap();
    assert_eq!(config.dashboard_origins, ["https://dash.example", "http://localhost:5173"]);
    for text in ["*", "null", "dash.example", "https://dash.example/path"] {
        let refusal = problem(|it| it.dashboard_origins = Some(text.into()));
        assert!(refusal.starts_with("DASHBOARD_ORIGINS "), "{refusal}");
    }
}

#[test]
fn a_refused_secret_is_not_repeated() {
    let refusal = problem(|it| it.jwt_secret = Some("hunter2".into()));
    assert!(refusal.starts_with("JWT_SECRET ") && !refusal.contains("hunter2"), "{refusal}");
    let refusal = problem(|it| it.database_url = Some("mysql://me:hunter2@db/aiwm".into()));
    assert!(refusal.starts_with("DATABASE_URL ") && !refusal.contains("hunter2"), "{refusal}");
}

#[test]
fn who_serves_together_with_others_needs_a_server_and_an_address_and_waits_for_nobody() {
    let shared = |settings: &mut Settings| {
        settings.shared = Some("true".into());
        settings.public_url = Some("https://aiwm.example".into());
        settings.database_url = Some("postgres://aiwm@localhost/aiwm".into());
    };
    let mut settings = Settings::default();
    shared(&mut settings);
    assert!(Config::check("data", settings).unwrap().shared);
    type Case = (fn(&mut Settings), &'static str);
    let missing: [Case; 4] = [
        (|settings| settings.public_url = None, "PUBLIC_URL"),
        (|settings| settings.database_url = None, "DATABASE_URL"),
        (|settings| settings.standby = Some("true".into()), "STANDBY"),
        (|settings| settings.aiwm = Some("true".into()), "AIWM"),
    ];
    for (change, named) in missing {
        let told = problem(|settings| {
            shared(settings);
            change(settings);
        });
        assert!(told.starts_with("SHARED ") && told.contains(named), "{told}");
    }
}

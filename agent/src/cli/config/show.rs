//! `aio-worker config show`: what each key is for the daemon, and who says so: the environment, the
//! file, the token, or the program itself. Judges no value; `check` does.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use aio_host::{
    config::{ConfigError, ConfigFile, HealthTable, UpdatesTable},
    layout::Layout,
};
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::error_code::ErrorCode;
use serde::Serialize;
use toml::{Table, Value};

use super::file::known_keys;
use crate::{
    cli::{
        answer::{Answer, internal, print_json},
        paint::{Tone, paint},
    },
    config::{DEFAULT_LOG, DEFAULT_NVML_LIBRARY, Environment, Flags, environment, token_source},
    health::Thresholds,
};

/// The documented sample names the variable of each key that has one, in brackets.
const SAMPLE: &str = include_str!("../../../../packaging/config.toml");

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Passwords are not shown. Without root, a token that only root may read says nothing of the endpoint. The environment is that of this \
command: a variable that a drop-in gives to the service is not seen.

Exit status: 0; 74 the file cannot be read; 78 it is no configuration: see aio-worker config check.

Examples:
  sudo aio-worker config show
  AIO_LOG=debug aio-worker config show --output json")]
pub(super) struct Arguments {
    /// The configuration [default: /etc/aio-worker/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
struct Shown {
    file: PathBuf,
    values: Vec<Effective>,
}

/// A key as it is for the daemon.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Effective {
    key: String,
    /// None where nobody says one, which is no fault.
    value: Option<Value>,
    source: Source,
    /// The variable that says it, or could.
    variable: Option<String>,
}

/// Who says it; from strong to weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Environment,
    File,
    Token,
    BuiltIn,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let layout = Layout::default();
    let file = arguments.config.clone().unwrap_or_else(|| layout.config());
    let config = ConfigFile::read(&file).map_err(refusal)?;
    let table = table(&config)?;
    let endpoint = token_source(&Flags::default(), &environment, &layout)
        .ok()
        .and_then(|token| Some(token.read().ok()?.claims().ctl.clone()));
    let shown = Shown { values: effective(&table, &built_in()?, &environment, endpoint), file };
    match arguments.answer.output {
        Output::Json => print_json(&shown)?,
        Output::Text => print(&screen(&shown.values, &shown.file))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn refusal(error: ConfigError) -> Failure {
    match &error {
        ConfigError::Unreadable { source, .. } => {
            Failure::new(ErrorCode::FileFailed, format!("{error}: {source}"))
        }
        ConfigError::Invalid { source, .. } => {
            Failure::new(ErrorCode::ConfigInvalid, format!("{error}: {}", source.message()))
        }
    }
}

fn table(config: &ConfigFile) -> Result<Table, Failure> {
    Table::try_from(config).map_err(|error| internal(error.to_string()))
}

/// What counts where nobody says anything.
fn built_in() -> Result<Table, Failure> {
    table(&ConfigFile {
        insecure_http: Some(false),
        log: Some(DEFAULT_LOG.to_owned()),
        nvml_library: Some(DEFAULT_NVML_LIBRARY.into()),
        health: Some(HealthTable::from(&Thresholds::default())),
        updates: Some(UpdatesTable { mode: Some("off".to_owned()), ..UpdatesTable::default() }),
        ..ConfigFile::default()
    })
}

/// Every key that there is, those of tables as `table.key`.
fn keys() -> impl Iterator<Item = String> {
    let of_tables =
        [("health", known_keys::<HealthTable>()), ("updates", known_keys::<UpdatesTable>())].map(of_table);
    let is_table = |key: &String| TABLES.contains(&key.as_str());
    let of_file = known_keys::<ConfigFile>().into_iter().filter(move |key| !is_table(key));
    of_file.chain(of_tables.into_iter().flatten())
}

/// The names of the tables.
const TABLES: [&str; 2] = ["health", "updates"];

fn of_table((table, keys): (&str, Vec<String>)) -> Vec<String> {
    keys.into_iter().map(|key| format!("{table}.{key}")).collect()
}

/// What the file says of a key, or of one of a table.
fn said<'a>(file: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((table, key)) => file.get(table)?.get(key),
        None => file.get(key),
    }
}

fn effective(
    file: &Table,
    built_in: &Table,
    env: Environment<'_>,
    endpoint: Option<String>,
) -> Vec<Effective> {
    let of = |key: String| {
        let variable = variable(&key);
        let of_variable = variable.as_deref().and_then(env).filter(|text| !text.trim().is_empty());
        let of_variable = of_variable.map(Value::String);
        let of_token = endpoint.clone().filter(|_| key == "controller_endpoint").map(Value::String);
        let (value, source) = match (of_variable, said(file, &key), of_token) {
            (Some(value), _, _) => (Some(value), Source::Environment),
            (None, Some(value), _) => (Some(value.clone()), Source::File),
            (None, None, Some(value)) => (Some(value), Source::Token),
            (None, None, None) => (said(built_in, &key).cloned(), Source::BuiltIn),
        };
        Effective { value: value.map(without_login), source, variable, key }
    };
    keys().map(of).collect()
}

fn variable(key: &str) -> Option<String> {
    let name = format!("AIO_{}", key.to_uppercase());
    SAMPLE.contains(&format!("[{name}]")).then_some(name)
}

/// What stands before an `@` may be a password.
fn without_login(value: Value) -> Value {
    match value {
        Value::String(text) => match text.rsplit_once('@') {
            Some((login, host)) => {
                let scheme = login.split_once("//").map(|(scheme, _)| format!("{scheme}//"));
                Value::String(format!("{}[redacted]@{host}", scheme.unwrap_or_default()))
            }
            None => Value::String(text),
        },
        other => other,
    }
}

fn screen(values: &[Effective], file: &Path) -> String {
    let width = values.iter().map(|value| value.key.len()).max().unwrap_or_default();
    let row = |effective: &Effective| {
        let key = paint(Tone::Heading, &format!("{:<width$}", effective.key));
        let value = effective.value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
        let source = match effective.source {
            Source::Environment => effective.variable.clone().unwrap_or_default(),
            Source::File => file.display().to_string(),
            Source::Token => "the token".to_owned(),
            Source::BuiltIn => "built in".to_owned(),
        };
        format!("{key}  {value}  {}\n", paint(Tone::Faint, &format!("({source})")))
    };
    values.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, variables: &[(&str, &str)], endpoint: Option<&str>) -> Vec<Effective> {
        let env = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        effective(&file.parse().unwrap(), &built_in().unwrap(), &env, endpoint.map(str::to_owned))
    }

    fn one(values: &[Effective], key: &str) -> (Option<String>, Source) {
        let found = values.iter().find(|value| value.key == key).unwrap();
        (found.value.as_ref().map(ToString::to_string), found.source)
    }

    #[test]
    fn each_key_has_its_value_and_who_says_it() {
        let values =
            of("log = \"debug\"\ninsecure_http = true\n", &[("AIO_LOG", "warn")], Some("wss://x/ws"));
        assert_eq!(one(&values, "log"), (Some("\"warn\"".into()), Source::Environment));
        assert_eq!(one(&values, "insecure_http"), (Some("true".into()), Source::File));
        assert_eq!(one(&values, "controller_endpoint"), (Some("\"wss://x/ws\"".into()), Source::Token));
        assert_eq!(one(&values, "nvml_library"), (Some("\"libnvidia-ml.so.1\"".into()), Source::BuiltIn));
        assert_eq!(one(&values, "proxy"), (None, Source::BuiltIn));
        let named = of("controller_endpoint = \"wss://y/ws\"\n", &[], Some("wss://x/ws"));
        assert_eq!(one(&named, "controller_endpoint"), (Some("\"wss://y/ws\"".into()), Source::File));
    }

    #[test]
    fn a_threshold_stands_under_its_tables_name() {
        let values = of("[health]\nxid_hours = 1\n", &[], None);
        assert_eq!(one(&values, "health.xid_hours"), (Some("1".into()), Source::File));
        assert_eq!(one(&values, "health.recovery_secs"), (Some("60".into()), Source::BuiltIn));
        assert_eq!(one(&values, "health.expected_gpus"), (None, Source::BuiltIn));
        let values = of("[updates]\nwindow = \"Sat\"\n", &[], None);
        assert_eq!(one(&values, "updates.window"), (Some("\"Sat\"".into()), Source::File));
        assert_eq!(one(&values, "updates.mode"), (Some("\"off\"".into()), Source::BuiltIn));
        assert!(values.iter().all(|value| value.key != "health" && value.key != "updates"), "{values:?}");
    }

    #[test]
    fn no_password_is_shown_wherever_it_stands() {
        for proxy in ["http://me:hunter2@proxy.example:3128", "me:hunter2@proxy.example:3128"] {
            let file = format!("proxy = \"{proxy}\"\n");
            for values in [of(&file, &[], None), of("", &[("AIO_PROXY", proxy)], None)] {
                let text = screen(&values, Path::new("/etc/aio-worker/config.toml"));
                assert!(
                    text.contains("[redacted]@proxy.example:3128\"") && !text.contains("hunter2"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn every_key_of_the_file_is_shown_with_the_variable_that_the_sample_names() {
        let values = of("", &[], None);
        let variable = |key: &str| values.iter().find(|value| value.key == key).unwrap().variable.clone();
        for key in ["controller_endpoint", "insecure_http", "ca_file", "proxy", "log", "nvml_library"] {
            assert_eq!(variable(key), Some(format!("AIO_{}", key.to_uppercase())));
        }
        assert_eq!(super::variable("something_else"), None);
    }
}

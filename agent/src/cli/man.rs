//! `aio-worker man`: the manual, made of the command line itself: a page of the program, and one of
//! each of its commands. The same words give the same bytes: no page bears the date on which it was
//! made.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aio_installer::cli::{Failure, print};
use aio_protocol::{error_code::ErrorCode, release::build};
use clap::Command;
use clap_mangen::Man;

use super::answer::internal;

/// Administration: man-pages(7).
const SECTION: &str = "8";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aio-worker man | man -l -
  sudo aio-worker man --output-dir /usr/local/share/man/man8")]
pub(super) struct Arguments {
    /// Write the page of each command, too, as files into this folder, which is made if it is missing
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, command: Command) -> Result<(), Failure> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let Some(folder) = &arguments.output_dir else {
        return print(&page(command)?);
    };
    let failed = |path: &Path, error: &io::Error| {
        Failure::new(ErrorCode::FileFailed, format!("could not write {}: {error}", path.display()))
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for (name, text) in pages(command)? {
        let path = folder.join(format!("{name}.{SECTION}"));
        fs::write(&path, text).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// Every page, with its name.
fn pages(command: Command) -> Result<Vec<(String, String)>, Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut all = Vec::new();
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        all.extend(pages(subcommand.clone())?);
    }
    all.insert(0, (name, page(command)?));
    Ok(all)
}

fn page(command: Command) -> Result<String, Failure> {
    let unwritten = |error: io::Error| internal(format!("the page could not be made: {error}"));
    let mut page = Vec::new();
    let title = command.get_display_name().unwrap_or(command.get_name()).to_uppercase();
    let source = format!("aio-worker {}", build::number());
    let man = Man::new(command).title(title).section(SECTION).date("").source(source).manual("AIO Worker");
    man.render(&mut page).map_err(unwritten)?;
    let page = String::from_utf8(page).map_err(|error| internal(format!("the page is no text: {error}")))?;
    // Without a date there is an empty one, or what follows would stand in its place.
    let (undated, dated) = (format!(" {SECTION}  \""), format!(" {SECTION} \"\" \""));
    Ok(page.replacen(&undated, &dated, 1).chars().map(in_ascii).collect())
}

/// What every roff reads, whatever the locale: groff_char(7).
fn in_ascii(c: char) -> String {
    if c.is_ascii() { c.to_string() } else { format!("\\[u{:04X}]", u32::from(c)) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn all() -> Vec<(String, String)> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        pages(command).unwrap()
    }

    #[test]
    fn every_command_has_a_page_of_the_same_bytes_each_time_and_without_a_date() {
        let pages = all();
        assert_eq!(pages, all());
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["aio-worker", "aio-worker-status", "aio-worker-config", "aio-worker-config-check"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for (name, text) in &pages {
            let heading = text.lines().find(|line| line.starts_with(".TH ")).unwrap();
            let name_in_capitals = name.to_uppercase();
            let expected = format!(
                ".TH {name_in_capitals} {SECTION} \"\" \"aio-worker {}\" \"AIO Worker\"",
                build::number()
            );
            assert_eq!(heading, expected);
            assert!(text.is_ascii(), "{name}");
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"] {
                assert!(text.contains(&format!(".SH {section}\n")), "{name} has no {section}: {text}");
            }
        }
    }

    #[test]
    fn a_page_that_is_named_in_another_is_there() {
        let pages = all();
        let (_, first) = &pages[0];
        let named: Vec<_> = first.lines().filter_map(|line| line.strip_suffix("(8)")).collect();
        assert!(named.len() > 10, "{first}");
        for name in named {
            let name = name.replace('\\', "");
            assert!(pages.iter().any(|(page, _)| *page == name), "there is no page {name}");
        }
    }
}

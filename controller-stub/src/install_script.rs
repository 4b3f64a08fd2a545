//! The bootstrap script of one token, from `packaging/install.sh.txt`: a short bash script for a
//! machine that has nothing yet. It decides how values are quoted; what the script does stands in
//! the template.

use aio_protocol::{
    ids::NodeId,
    release::{Checksum, Platform, ReleaseVersion},
    time::Timestamp,
};
use askama::Template;

/// What the script is made of.
pub(crate) struct Facts<'a> {
    pub node_name: &'a str,
    pub node_id: &'a NodeId,
    pub version: &'a ReleaseVersion,
    pub token: &'a str,
    pub expires: Timestamp,
    pub documentation: &'a str,
    pub generated: Timestamp,
    /// The installers that are published, by platform: address and checksum.
    pub installers: &'a [(Platform, String, Checksum)],
    /// The certificate (PEM) that the installers' server is trusted by, and no other; none where
    /// the operating system's roots will do.
    pub authority: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "install.sh.txt")]
struct Script<'a> {
    node_name: String,
    node_id: &'a NodeId,
    version: &'a ReleaseVersion,
    token: &'a str,
    expires: Timestamp,
    documentation: String,
    generated: Timestamp,
    installers: Vec<Installer<'a>>,
    authority: Option<&'a str>,
}

struct Installer<'a> {
    architecture: &'static str,
    url: String,
    checksum: &'a str,
}

/// Writes the script.
pub(crate) fn render(facts: &Facts<'_>) -> Result<String, askama::Error> {
    let installers = facts.installers.iter().map(|(platform, url, checksum)| Installer {
        architecture: match platform {
            Platform::LinuxAmd64 => "x86_64",
            Platform::LinuxArm64 => "aarch64",
        },
        url: quoted(url),
        checksum: checksum.hex(),
    });
    Script {
        node_name: comment(facts.node_name),
        node_id: facts.node_id,
        version: facts.version,
        token: facts.token,
        expires: facts.expires,
        documentation: comment(facts.documentation),
        generated: facts.generated,
        installers: installers.collect(),
        authority: facts.authority.map(str::trim_end),
    }
    .render()
}

/// `text` on one line: what a comment ends with, it cannot contain.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect()
}

/// `text` as one word of the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", comment(text).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Command};

    use super::*;

    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

    fn script(node_name: &str, url: &str) -> String {
        script_trusting(node_name, url, None)
    }

    fn script_trusting(node_name: &str, url: &str, authority: Option<&str>) -> String {
        let checksum = Checksum::from_hex(&"a".repeat(64)).unwrap();
        render(&Facts {
            node_name,
            node_id: &NodeId::from_bytes([1; 12]),
            version: &"v1.0.0".parse().unwrap(),
            token: "header.claims.signature",
            expires: Timestamp::from_millis(1_796_990_400_000),
            documentation: "https://docs.x-or.cloud/aio-worker/installation",
            generated: Timestamp::from_millis(1_765_454_400_000),
            installers: &[
                (Platform::LinuxAmd64, url.to_owned(), checksum.clone()),
                (Platform::LinuxArm64, url.to_owned(), checksum),
            ],
            authority,
        })
        .unwrap()
    }

    const URL: &str = "https://releases.example/v1.0.0/aio-installer-linux-amd64";
    const NASTY: &str = "gpu 01'; $(touch /tmp/x) `id` \"!!\" \\\nrm -rf /\r# \u{2028}é";

    #[test]
    fn the_header_names_node_id_version_and_date() {
        let script = script("gpu-worker-01", URL);
        for line in [
            "# Generated: 2025-12-11T12:00:00.000Z",
            "# Node: gpu-worker-01",
            "# Node ID: 010101010101010101010101",
            "# Version: v1.0.0",
        ] {
            assert!(script.lines().any(|it| it == line), "{line}\n{script}");
        }
    }

    #[test]
    fn the_token_is_in_no_command_line() {
        let script = script("gpu-worker-01", URL);
        let lines: Vec<_> = script.lines().filter(|line| line.contains("header.claims.signature")).collect();
        assert_eq!(lines, ["header.claims.signature"], "alone in the here-document");
    }

    #[test]
    fn no_name_leaves_its_comment() {
        let (nasty, tame) = (script(NASTY, URL), script("gpu", URL));
        let code = |script: &str| {
            script.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(code(&nasty), code(&tame));
    }

    #[test]
    fn no_address_leaves_its_quotes() {
        let line = format!("printf %s {}", quoted("https://a/'; $(id) `id` \"!!\" \\ \n#"));
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "https://a/'; $(id) `id` \"!!\" \\  #");
    }

    #[test]
    fn a_private_authority_is_inline_and_what_the_download_is_trusted_by() {
        let script = script_trusting("gpu-worker-01", URL, Some(AUTHORITY));
        assert!(script.contains(&format!("<<'AUTHORITY'\n{AUTHORITY}AUTHORITY\n")), "{script}");
        assert_eq!(
            script.matches("\"$authority\"").count(),
            3,
            "written, and named to curl and wget: {script}"
        );
        assert!(!self::script("gpu-worker-01", URL).contains("authority"));
    }

    #[test]
    fn bash_and_shellcheck_find_nothing_wrong() {
        for (name, authority) in [("gpu-worker-01", None), (NASTY, None), ("gpu-worker-01", Some(AUTHORITY))]
        {
            let mut file = tempfile::NamedTempFile::with_suffix(".sh").unwrap();
            file.write_all(script_trusting(name, URL, authority).as_bytes()).unwrap();
            let bash = Command::new("bash").arg("-n").arg(file.path()).output().unwrap();
            assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
            match Command::new("shellcheck").arg(file.path()).output() {
                Ok(found) => {
                    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout))
                }
                Err(error) => eprintln!("shellcheck was not run: {error}"),
            }
        }
    }
}

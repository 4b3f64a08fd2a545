//! A load balancer with the sample configuration that is shipped, in front of two ports of this machine.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

/// A balancer's process, ended with the test.
pub(crate) struct Balancer {
    process: Child,
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Balancer {
    pub(crate) fn haproxy(ports: [u16; 2]) -> Self {
        let port = free_port();
        let text = changed(
            "haproxy/aio-controller-stub.cfg",
            &[
                (":443 ssl crt /etc/haproxy/aiwm.pem alpn http/1.1", &format!("127.0.0.1:{port}")),
                (" ssl verify required ca-file /etc/haproxy/controllers.pem", ""),
                ("192.0.2.11:3305", &format!("127.0.0.1:{}", ports[0])),
                ("192.0.2.12:3305", &format!("127.0.0.1:{}", ports[1])),
            ],
        );
        let (folder, config) = written(&text);
        // What it would do otherwise than it is told, it warns of; one that waits for its servers says so, too.
        let checked = Command::new("haproxy").args(["-c", "-f"]).arg(&config).output().unwrap();
        let told = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && !told.contains("WARNING"), "{told}");
        let process = Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&config).spawn().unwrap();
        Self { process, url: format!("http://127.0.0.1:{port}"), _folder: folder }
    }

    pub(crate) fn nginx(ports: [u16; 2]) -> Self {
        let port = free_port();
        let text = changed(
            "nginx/several-controllers.conf",
            &[
                ("listen 443 ssl;", &format!("listen 127.0.0.1:{port};")),
                ("    listen [::]:443 ssl;\n", ""),
                ("ssl_certificate     /etc/ssl/aiwm/chain.pem;", ""),
                ("ssl_certificate_key /etc/ssl/aiwm/key.pem;", ""),
                ("proxy_pass https://aio_controllers;", "proxy_pass http://aio_controllers;"),
                ("proxy_ssl_trusted_certificate /etc/ssl/aiwm/controllers.pem;", ""),
                ("192.0.2.11:3305", &format!("127.0.0.1:{}", ports[0])),
                ("192.0.2.12:3305", &format!("127.0.0.1:{}", ports[1])),
            ],
        );
        let around = format!(
            "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error; events {{ }}\n\
             http {{ access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; \
             uwsgi_temp_path d; scgi_temp_path e;\n{text}\n}}"
        );
        let (folder, config) = written(&around);
        let process = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .args(["-e", "stderr", "-c"])
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, url: format!("http://127.0.0.1:{port}"), _folder: folder }
    }
}

/// A sample, with other words for those that name a machine of its reader's.
fn changed(sample: &str, words: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(sample);
    let mut text = fs::read_to_string(path).unwrap();
    for (from, to) in words {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("balancer.conf");
    fs::write(&config, text).unwrap();
    (folder, config)
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

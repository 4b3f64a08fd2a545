//! The operating system's store of authorities, file by file: which of its files hold no
//! certificate that can be used. What the store is trusted for is the verifier's business, which
//! passes over such files.

use std::{collections::BTreeSet, fs, path::PathBuf};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Where Debian and Ubuntu keep it: a bundle, a file for each authority, and links to those by hash.
const FOLDER: &str = "/etc/ssl/certs";

/// The files that hold something else than usable certificates, each with the reason.
pub fn unusable_files() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    // Links by hash and by name lead to the same file. A link that leads nowhere stays itself.
    let files: BTreeSet<PathBuf> =
        entries.map(|entry| entry.path()).map(|path| path.canonicalize().unwrap_or(path)).collect();
    files
        .into_iter()
        .filter(|path| !path.is_dir())
        .filter_map(|path| unusable(&fs::read(&path)).map(|reason| (path, reason)))
        .collect()
}

fn unusable(content: &std::io::Result<Vec<u8>>) -> Option<String> {
    let bytes = match content {
        Ok(bytes) => bytes,
        Err(error) => return Some(error.to_string()),
    };
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        count += 1;
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|it| RootCertStore::empty().add(it).map_err(|error| error.to_string()));
        if let Err(reason) = added {
            return Some(format!("certificate {count}: {reason}"));
        }
    }
    (count == 0).then(|| "there is no certificate in it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_usable_when_every_certificate_in_it_is() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let of = |text: String| unusable(&Ok(text.into_bytes()));
        assert_eq!(of(good.clone()), None);
        assert_eq!(of(format!("{good}{good}")), None);
        assert_eq!(of(String::new()).unwrap(), "there is no certificate in it");
        assert!(of(broken.to_owned()).unwrap().starts_with("certificate 1: "));
        assert!(of(format!("{good}{broken}")).unwrap().starts_with("certificate 2: "));
        assert!(of(good.replace("-----END CERTIFICATE-----", "")).is_some());
        assert!(unusable(&Err(std::io::ErrorKind::NotFound.into())).is_some());
    }
}

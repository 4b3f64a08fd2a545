//! Where releases are fetched from, as `--from` says it. Pure: looks nothing up.

use reqwest::Url;

use super::error::FetchError;
use crate::loopback::is_this_machine;

/// What a forge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forge {
    GitHub,
    GitLab,
    Gitea,
}

/// Where releases lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Releases of a repository, each with a version's files as assets. `api` is what the forge's
    /// API begins with.
    Forge { forge: Forge, api: Url, owner: String, name: String },
    /// A tree of releases below this address, which ends with a slash.
    Tree(Url),
    /// The same in a bucket; requests are signed for the region, where there are keys.
    Bucket { base: Url, region: String },
}

/// The region of whoever says none.
const REGION: &str = "us-east-1";

impl Place {
    /// `github:OWNER/REPO`, `gitlab:[HOST/]GROUP/PROJECT`, `gitea:HOST/OWNER/REPO`, `s3://BUCKET/PREFIX` or
    /// `https://…`. In place of `HOST`, `http://127.0.0.1:PORT` does.
    pub(super) fn parse(
        text: &str,
        endpoint: Option<&str>,
        region: Option<&str>,
    ) -> Result<Self, FetchError> {
        let wrong = |problem| FetchError::Place { text: text.to_owned(), problem };
        let bucket = text.strip_prefix("s3://");
        if bucket.is_none() && (endpoint.is_some() || region.is_some()) {
            return Err(wrong("--s3-endpoint and --s3-region are for s3:// alone"));
        }
        let place = if let Some(rest) = bucket {
            bucket_of(rest, endpoint, region).ok_or_else(|| wrong("s3://BUCKET or s3://BUCKET/PREFIX"))?
        } else if let Some(rest) = text.strip_prefix("github:") {
            let (host, mut path) = repository(rest, 2).ok_or_else(|| wrong("github:OWNER/REPO"))?;
            let api = match host {
                // Where GitHub Enterprise has its API.
                Some(host) => host.join("api/v3/").ok(),
                None => Url::parse("https://api.github.com/").ok(),
            };
            let (name, owner) = (path.pop().unwrap_or_default(), path.join("/"));
            let api = api.ok_or_else(|| wrong("github:HOST/OWNER/REPO"))?;
            Self::Forge { forge: Forge::GitHub, api, owner, name }
        } else if let Some(rest) = text.strip_prefix("gitlab:") {
            let expected = "gitlab:GROUP/PROJECT or gitlab:HOST/GROUP/PROJECT";
            let (host, mut path) = repository(rest, usize::MAX).ok_or_else(|| wrong(expected))?;
            let api =
                host.or_else(|| Url::parse("https://gitlab.com/").ok()).ok_or_else(|| wrong(expected))?;
            let (name, owner) = (path.pop().unwrap_or_default(), path.join("/"));
            Self::Forge { forge: Forge::GitLab, api, owner, name }
        } else if let Some(rest) = text.strip_prefix("gitea:") {
            let expected = "gitea:HOST/OWNER/REPO";
            let (host, mut path) = repository(rest, 2).ok_or_else(|| wrong(expected))?;
            let (name, owner) = (path.pop().unwrap_or_default(), path.join("/"));
            Self::Forge { forge: Forge::Gitea, api: host.ok_or_else(|| wrong(expected))?, owner, name }
        } else {
            let expected = "github:…, gitlab:…, gitea:…, s3://… or https://…";
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let url = url.filter(|url| url.query().is_none() && url.fragment().is_none());
            Self::Tree(folder(url.ok_or_else(|| wrong(expected))?))
        };
        let url = place.url();
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a password has no place here; --token-file has"));
        }
        if url.scheme() != "https" && !is_this_machine(url) {
            return Err(FetchError::InsecureUrl(text.to_owned()));
        }
        Ok(place)
    }

    /// What all requests that may carry a token begin with.
    pub(super) fn url(&self) -> &Url {
        match self {
            Self::Forge { api, .. } => api,
            Self::Tree(base) | Self::Bucket { base, .. } => base,
        }
    }
}

/// `[HOST/]OWNER/REPO`, with `longest` parts behind the host at most.
fn repository(rest: &str, longest: usize) -> Option<(Option<Url>, Vec<String>)> {
    let (host, path) = match rest.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            let (host, path) = rest.split_once('/')?;
            (Some(format!("{scheme}://{host}/")), path)
        }
        Some(_) => return None,
        None => match rest.split_once('/') {
            // A group may have a dot in its name, but then it is not followed by two parts.
            Some((host, path)) if path.contains('/') && (host.contains(['.', ':']) || longest == 2) => {
                (Some(format!("https://{host}/")), path)
            }
            _ => (None, rest),
        },
    };
    let host = host.map(|text| Url::parse(&text)).transpose().ok()?;
    let parts: Vec<_> = path.split('/').map(str::to_owned).collect();
    let is_name = |part: &String| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    (parts.len() >= 2 && parts.len() <= longest && parts.iter().all(is_name)).then_some((host, parts))
}

fn bucket_of(rest: &str, endpoint: Option<&str>, region: Option<&str>) -> Option<Place> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if bucket.is_empty() || bucket.starts_with('.') || !bucket.bytes().all(allowed) {
        return None;
    }
    let region = region.unwrap_or(REGION);
    let base = match endpoint {
        Some(endpoint) => folder(Url::parse(endpoint).ok()?).join(&format!("{bucket}/")).ok()?,
        None => Url::parse(&format!("https://{bucket}.s3.{region}.amazonaws.com/")).ok()?,
    };
    let base = folder(base.join(prefix.trim_start_matches('/')).ok()?);
    Some(Place::Bucket { base, region: region.to_owned() })
}

/// The address with a slash at its end, so that names can be put behind it.
fn folder(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Place, FetchError> {
        Place::parse(text, None, None)
    }

    #[test]
    fn sources_are_written_as_people_write_them() {
        for (text, forge, api, owner, name) in [
            ("github:acme/aio", Forge::GitHub, "https://api.github.com/", "acme", "aio"),
            (
                "github:git.acme.example/acme/aio",
                Forge::GitHub,
                "https://git.acme.example/api/v3/",
                "acme",
                "aio",
            ),
            ("gitlab:acme/aio", Forge::GitLab, "https://gitlab.com/", "acme", "aio"),
            ("gitlab:acme/gpu/aio", Forge::GitLab, "https://gitlab.com/", "acme/gpu", "aio"),
            ("gitlab:git.acme.example/acme/aio", Forge::GitLab, "https://git.acme.example/", "acme", "aio"),
            (
                "gitea:git.acme.example:3000/acme/aio",
                Forge::Gitea,
                "https://git.acme.example:3000/",
                "acme",
                "aio",
            ),
            ("gitea:http://127.0.0.1:3000/acme/aio", Forge::Gitea, "http://127.0.0.1:3000/", "acme", "aio"),
        ] {
            let api = Url::parse(api).unwrap();
            let expected = Place::Forge { forge, api, owner: owner.to_owned(), name: name.to_owned() };
            assert_eq!(parsed(text).unwrap(), expected, "{text}");
        }
        let tree = Url::parse("https://releases.example/aio/").unwrap();
        assert_eq!(parsed("https://releases.example/aio").unwrap(), Place::Tree(tree));
        for (text, endpoint, region, base) in [
            ("s3://b/aio", None, Some("eu-west-1"), "https://b.s3.eu-west-1.amazonaws.com/aio/"),
            ("s3://b", None, None, "https://b.s3.us-east-1.amazonaws.com/"),
            ("s3://b/a/b/", Some("https://minio.example:9000"), None, "https://minio.example:9000/b/a/b/"),
        ] {
            assert_eq!(Place::parse(text, endpoint, region).unwrap().url().as_str(), base);
        }
    }

    #[test]
    fn what_is_no_source_or_not_safe_is_refused() {
        for text in [
            "",
            "acme/aio",
            "github:acme",
            "github:acme/../aio",
            "github:acme/a o",
            "gitea:acme/aio",
            "gitlab:a//b",
            "s3://",
            "s3://a b",
            "ftp://releases.example",
            "https://releases.example/?a",
            "https://user:secret@releases.example/",
        ] {
            assert!(matches!(parsed(text), Err(FetchError::Place { .. })), "{text}");
        }
        for text in ["http://releases.example/", "gitea:http://git.acme.example/acme/aio"] {
            assert!(matches!(parsed(text), Err(FetchError::InsecureUrl(_))), "{text}");
        }
        assert!(Place::parse("https://a.example/", Some("https://b.example"), None).is_err());
    }
}

//! `NO_PROXY`: which targets are reached without a proxy, by the conventions that curl, Go and Python
//! share. Entries are separated by commas or blanks. A name stands for itself and what is below it, with
//! or without `.` or `*.` before it; an address for itself; `10.0.0.0/8` for a network; `*` for all. A port
//! restricts an entry to it.

use std::net::IpAddr;

/// Targets that are reached without a proxy.
#[derive(Debug, Default)]
pub(super) struct Exceptions {
    entries: Vec<(Pattern, Option<u16>)>,
    ignored: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Pattern {
    All,
    /// In lower case, without a dot before or behind it.
    Name(String),
    Network(IpAddr, u8),
}

impl Exceptions {
    pub(super) fn parse(text: &str) -> Self {
        let mut exceptions = Self::default();
        for entry in text.split(|separator: char| separator == ',' || separator.is_whitespace()) {
            let entry = super::unquoted(entry);
            match parse(entry) {
                _ if entry.is_empty() => {}
                Some(pattern) => exceptions.entries.push(pattern),
                None => exceptions.ignored.push(entry.to_owned()),
            }
        }
        exceptions
    }

    /// The entries that stand for nothing.
    pub(super) fn ignored(self) -> Vec<String> {
        self.ignored
    }

    /// Whether `host`, as URLs write it, is reached without a proxy.
    pub(super) fn cover(&self, host: &str, port: u16) -> bool {
        let host =
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let matches = |pattern: &Pattern| match (pattern, address) {
            (Pattern::All, _) => true,
            (Pattern::Network(network, length), Some(address)) => contains(*network, *length, address),
            (Pattern::Name(name), None) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        };
        self.entries.iter().any(|(pattern, only)| only.is_none_or(|only| only == port) && matches(pattern))
    }
}

fn parse(entry: &str) -> Option<(Pattern, Option<u16>)> {
    let (host, port) = match entry.rsplit_once(':') {
        // More colons without brackets are an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (entry, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host == "*" {
        return Some((Pattern::All, port));
    }
    let (address, length) = match host.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (host, None),
    };
    if let Ok(address) = address.parse::<IpAddr>() {
        let address = address.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(longest);
        return (length <= longest).then_some((Pattern::Network(address, length), port));
    }
    let name =
        host.strip_prefix("*.").or_else(|| host.strip_prefix('.')).unwrap_or(host).trim_end_matches('.');
    let is_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') || !byte.is_ascii();
    let valid = length.is_none() && !name.is_empty() && name.bytes().all(is_name);
    valid.then(|| (Pattern::Name(name.to_ascii_lowercase()), port))
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let ignored = 128 - u32::from(length);
    network.is_ipv4() == address.is_ipv4()
        && (bits(network) ^ bits(address)).checked_shr(ignored).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_go_and_python_except_is_excepted() {
        for (text, host, port, excepted) in [
            ("aiwm.example", "aiwm.example", 443, true),
            ("example", "aiwm.EXAMPLE", 443, true),
            ("ample", "aiwm.example", 443, false),
            (".example", "aiwm.example", 443, true),
            ("*.example", "aiwm.example", 443, true),
            ("*.example", "a.b.example.", 443, true),
            ("*", "aiwm.example", 443, true),
            ("aiwm.example:3305", "aiwm.example", 3305, true),
            ("aiwm.example:3305", "aiwm.example", 443, false),
            ("a.example b.example,c.example", "b.example", 443, true),
            (" a.example , c.example ", "c.example", 443, true),
            ("\"a.example\"", "a.example", 443, true),
            ("10.0.0.0/8", "10.3.2.1", 443, true),
            ("10.0.0.0/8", "11.3.2.1", 443, false),
            ("10.3.2.1", "10.3.2.1", 443, true),
            ("10.3.2.1:80", "10.3.2.1", 443, false),
            ("fd00::/8", "[fd12::1]", 443, true),
            ("[fd12::1]:443", "[fd12::1]", 443, true),
            ("fd12::1", "[fd12::1]", 443, true),
            ("0.0.0.0/0", "10.3.2.1", 443, true),
            ("0.0.0.0/0", "[fd12::1]", 443, false),
            ("", "aiwm.example", 443, false),
        ] {
            assert_eq!(Exceptions::parse(text).cover(host, port), excepted, "{text} {host}:{port}");
        }
    }

    #[test]
    fn what_stands_for_nothing_is_told() {
        let ignored =
            Exceptions::parse("a.example, 10.0.0.0/33, 10.*, b.example:x, https://c.example").ignored();
        assert_eq!(ignored, ["10.0.0.0/33", "10.*", "b.example:x", "https://c.example"]);
    }
}

//! Whether an address is this very machine's.

use std::net::IpAddr;

use reqwest::Url;

/// Whether a URL's host is this very machine. A name other than `localhost` may resolve to anything
/// at any time, so it is not.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

//! A release file as HTTP has it: which part of it a request asks for (pure), and its bytes, piece by piece.
//! The file is open only while a piece is read, so a slow download costs no descriptor; one that changes on
//! the way breaks off.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use super::{Stamp, downloads::Place};
use aio_protocol::release::Checksum;
use axum::{
    body::{Bytes, HttpBody},
    http::{HeaderMap, HeaderName, header},
};
use hyper::body::{Frame, SizeHint};

/// What is read at once. A download holds at most two of these in memory.
pub(crate) const CHUNK: u64 = 32 * 1024;

/// A file, as it was when it was hashed.
pub(crate) struct Served {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) checksum: Checksum,
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// From one byte to before another.
    Range(u64, u64),
    NotModified,
    Changed,
    NoSuchRange,
}

impl Served {
    pub(crate) fn size(&self) -> u64 {
        self.stamp.size
    }

    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", self.checksum.hex())
    }

    pub(crate) fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.stamp.modified.0.try_into().unwrap_or(0))
    }

    /// What `headers` ask for, in the order of RFC 9110, section 13.2.2.
    pub(crate) fn asked(&self, headers: &HeaderMap, now: SystemTime) -> Part {
        let (etag, modified) = (self.etag(), self.modified());
        let since = |name| date(headers, name);
        if headers.contains_key(header::IF_MATCH) {
            if !names(headers, header::IF_MATCH, |tag| tag == etag) {
                return Part::Changed;
            }
        } else if since(header::IF_UNMODIFIED_SINCE).is_some_and(|date| modified > date) {
            return Part::Changed;
        }
        if headers.contains_key(header::IF_NONE_MATCH) {
            if names(headers, header::IF_NONE_MATCH, |tag| tag.strip_prefix("W/").unwrap_or(tag) == etag) {
                return Part::NotModified;
            }
        } else if since(header::IF_MODIFIED_SINCE).is_some_and(|date| modified <= date) {
            return Part::NotModified;
        }
        let same = match headers.get(header::IF_RANGE) {
            None => true,
            // A file can change twice in the second that a date names.
            Some(value) => {
                value.to_str().is_ok_and(|tag| tag == etag)
                    || (since(header::IF_RANGE) == Some(modified) && modified + Duration::from_secs(1) < now)
            }
        };
        let mut ranges = headers.get_all(header::RANGE).iter();
        match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
            (Some(range), None) if same => part(range, self.size()),
            _ => Part::Whole,
        }
    }

    /// The bytes from `from` to before `to`.
    pub(crate) fn body(self, from: u64, to: u64, place: Place) -> Piecewise {
        Piecewise { file: self, next: from, end: to, reading: None, place }
    }
}

/// Whether one of the entity tags of `name` is meant; `*` is any.
fn names(headers: &HeaderMap, name: HeaderName, is_meant: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name);
    let mut tags = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    tags.any(|tag| tag.trim() == "*" || is_meant(tag.trim()))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// What one range means. What is no range of bytes, or several, means the whole file.
fn part(range: &str, size: u64) -> Part {
    let Some((unit, range)) = range.split_once('=') else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !unit.eq_ignore_ascii_case("bytes") || !is_number(first) || !is_number(last) {
        return Part::Whole;
    }
    // What is too large for a number is larger than the file.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let (from, to) = match (first, last) {
        ("", "") => return Part::Whole,
        ("", last) => (size.saturating_sub(number(last)), size),
        (first, "") => (number(first), size),
        (first, last) if number(first) > number(last) => return Part::Whole,
        (first, last) => (number(first), number(last).saturating_add(1).min(size)),
    };
    if from < to { Part::Range(from, to) } else { Part::NoSuchRange }
}

/// A part of a file as a body.
pub(crate) struct Piecewise {
    file: Served,
    next: u64,
    end: u64,
    reading: Option<Reading>,
    place: Place,
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl HttpBody for Piecewise {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let length = CHUNK.min(self.end - self.next);
        if length == 0 {
            return Poll::Ready(None);
        }
        let Self { file, next, place, reading, .. } = &mut *self;
        let reading = reading.get_or_insert_with(|| {
            let (path, stamp, from, turn) = (file.path.clone(), file.stamp.clone(), *next, place.turn());
            Box::pin(async move {
                let _turn = turn.await;
                let read = tokio::task::spawn_blocking(move || read(&path, &stamp, from, length));
                read.await.map_err(io::Error::other).flatten()
            })
        });
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        self.next += length;
        if !self.place.sent(length) {
            return Poll::Ready(Some(Err(io::Error::other("a slow download made room"))));
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.next)
    }
}

fn read(path: &Path, stamp: &Stamp, from: u64, length: u64) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if Stamp::of(&file.metadata()?) != *stamp {
        return Err(io::Error::other("the file has changed"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

    fn asked(headers: &[(HeaderName, &str)]) -> Part {
        let stamp = Stamp { inode: 1, size: 100, modified: (1_000_000_000, 7), changed: (0, 0) };
        let checksum = Checksum::from_hex(&"a".repeat(64)).unwrap();
        let file = Served { path: PathBuf::new(), stamp, checksum };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.replace("TAG", &file.etag()).parse().unwrap());
        }
        file.asked(&map, SystemTime::now())
    }

    #[test]
    fn a_range_is_a_part_and_what_is_none_is_the_whole() {
        for (range, part) in [
            ("bytes=0-", Part::Range(0, 100)),
            ("bytes=10-19", Part::Range(10, 20)),
            ("Bytes= 10-19", Part::Range(10, 20)),
            ("bytes=90-1000", Part::Range(90, 100)),
            ("bytes=0-99999999999999999999999", Part::Range(0, 100)),
            ("bytes=-10", Part::Range(90, 100)),
            ("bytes=-1000", Part::Range(0, 100)),
            ("bytes=100-", Part::NoSuchRange),
            ("bytes=99999999999999999999999-", Part::NoSuchRange),
            ("bytes=-0", Part::NoSuchRange),
            ("bytes=20-10", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(asked(&[(header::RANGE, range)]), part, "{range}");
        }
        assert_eq!(asked(&[(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")]), Part::Whole);
    }

    #[test]
    fn a_condition_comes_before_a_range() {
        let range = (header::RANGE, "bytes=0-9");
        for (name, value, part) in [
            (header::IF_NONE_MATCH, "TAG", Part::NotModified),
            (header::IF_NONE_MATCH, "\"x\", W/TAG", Part::NotModified),
            (header::IF_NONE_MATCH, "*", Part::NotModified),
            (header::IF_NONE_MATCH, "\"x\"", Part::Range(0, 10)),
            (header::IF_MATCH, "\"x\", TAG", Part::Range(0, 10)),
            (header::IF_MATCH, "W/TAG", Part::Changed),
            (header::IF_MATCH, "\"x\"", Part::Changed),
            (header::IF_MODIFIED_SINCE, MODIFIED, Part::NotModified),
            (header::IF_MODIFIED_SINCE, "Sun, 09 Sep 2001 01:46:39 GMT", Part::Range(0, 10)),
            (header::IF_UNMODIFIED_SINCE, MODIFIED, Part::Range(0, 10)),
            (header::IF_UNMODIFIED_SINCE, "Sun, 09 Sep 2001 01:46:39 GMT", Part::Changed),
            (header::IF_RANGE, "TAG", Part::Range(0, 10)),
            (header::IF_RANGE, "W/TAG", Part::Whole),
            (header::IF_RANGE, "\"x\"", Part::Whole),
            (header::IF_RANGE, MODIFIED, Part::Range(0, 10)),
            (header::IF_RANGE, "Sun, 09 Sep 2001 01:46:41 GMT", Part::Whole),
            (header::IF_RANGE, "nonsense", Part::Whole),
        ] {
            assert_eq!(asked(&[range.clone(), (name.clone(), value)]), part, "{name}: {value}");
        }
        let both = [(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, MODIFIED)];
        assert_eq!(asked(&both), Part::Whole, "a tag overrules a date");
    }
}

//! What an operator asks of the running daemon: to take an update now, or to put updates off. A
//! file in its runtime folder, which the daemon removes when it is done with it and which goes when
//! the daemon ends.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aio_host::files::{self, FileError};
use aio_protocol::time::Timestamp;

/// The file's name.
const FILE: &str = "update-order";

/// No operator puts updates off for longer: a pin is for that.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// A word to take an update now that nobody has heard for this long is none any more.
const HASTE_LIFE: Duration = Duration::from_secs(600);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Take now what is offered.
    Now(Timestamp),
    /// Take nothing until then.
    PutOff(Timestamp),
}

/// The place of orders.
#[derive(Debug, Clone)]
pub struct Orders(PathBuf);

impl Orders {
    /// In the daemon's runtime folder.
    pub fn in_folder(runtime_dir: &Path) -> Self {
        Self(runtime_dir.join(FILE))
    }

    /// What is asked at `now`, if anything is.
    pub fn read(&self, now: Timestamp) -> Option<Order> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (word, time) = text.trim().split_once(' ')?;
        let time: Timestamp = time.parse().ok()?;
        match word {
            "now" if time <= now && now.since(time) <= HASTE_LIFE => Some(Order::Now(time)),
            "defer" if time > now && time.since(now) <= LONGEST_DELAY => Some(Order::PutOff(time)),
            _ => None,
        }
    }

    /// Asks for it.
    pub fn give(&self, order: Order) -> Result<(), FileError> {
        let text = match order {
            Order::Now(time) => format!("now {time}\n"),
            Order::PutOff(time) => format!("defer {time}\n"),
        };
        files::replace_file(&self.0, text.as_bytes(), 0o644)
    }

    /// Forgets what was asked.
    pub fn clear(&self) -> Result<bool, FileError> {
        files::remove_file(&self.0)
    }
}

/// The present moment, as orders count it.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_while_it_counts_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let orders = Orders::in_folder(folder.path());
        let now = Timestamp::from_millis(1_800_000_000_000);
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(orders.read(now), None);
        let soon = Order::PutOff(now.plus(minutes(5)));
        orders.give(soon).unwrap();
        assert_eq!(orders.read(now), Some(soon));
        assert_eq!(orders.read(now.plus(minutes(5))), None, "its time is over");
        orders.give(Order::PutOff(now.plus(LONGEST_DELAY * 2))).unwrap();
        assert_eq!(orders.read(now), None, "nobody waits as long");
        orders.give(Order::Now(now)).unwrap();
        assert_eq!(orders.read(now), Some(Order::Now(now)));
        assert_eq!(orders.read(now.plus(minutes(11))), None, "nobody was there to hear it");
        assert!(orders.clear().unwrap() && !orders.clear().unwrap());
        fs::write(folder.path().join(FILE), "now and then").unwrap();
        assert_eq!(orders.read(now), None);
    }
}

//! Waiting for a condition with a bound. The error tells what was seen last, so that a failed test
//! explains itself.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const PACE: Duration = Duration::from_millis(25);

/// Looks again and again until `wanted` holds of what is seen, for at most `bound`. A look that
/// fails counts as one that did not see it yet.
pub fn wait_for<T: Debug>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = Instant::now() + bound;
    loop {
        let seen = look();
        match seen {
            Ok(value) if wanted(&value) => return Ok(value),
            Ok(value) if Instant::now() >= deadline => {
                bail!("waited {bound:?} for {what}; last seen: {value:#?}")
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {bound:?} for {what}; the last look failed")));
            }
            _ => std::thread::sleep(PACE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_tells_what_was_seen_last() {
        let mut looks = 0;
        let look = || {
            looks += 1;
            Ok(looks)
        };
        let error = wait_for("a negative number", Duration::from_millis(60), look, |n| *n < 0).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a negative number") && text.ends_with(&looks.to_string()), "{text}");
        assert!(looks > 1);
    }
}

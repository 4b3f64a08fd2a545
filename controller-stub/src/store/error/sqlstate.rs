//! What PostgreSQL's error codes mean to whoever asked
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use super::Problem;

/// What a failure with this SQLSTATE comes from.
pub(super) fn problem(code: &str) -> Problem {
    match code {
        "53100" => Problem::Full,
        // Raised by `refuse_unless_serving`.
        "AIO01" => Problem::Taken,
        "25006" => Problem::ReadOnly,
        // A serialization failure, a deadlock.
        "40001" | "40P01" => Problem::Collided,
        // A lock or a statement that took too long, too many connections, no memory.
        "55P03" | "57014" | "25P03" | "53300" | "53200" => Problem::Busy,
        // It stops, starts, or has crashed.
        "57P01" | "57P02" | "57P03" | "57P05" => Problem::Unreachable,
        // A password, a user without rights, a database or a schema that is not there.
        "28000" | "28P01" | "3D000" | "3F000" | "42501" => Problem::Refused,
        "XX001" | "XX002" | "58P01" => Problem::Damaged,
        code if code.starts_with("08") => Problem::Unreachable,
        _ => Problem::Fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_day_of_a_server_is_told_from_the_others() {
        for (code, expected) in [
            ("53100", Problem::Full),
            ("25006", Problem::ReadOnly),
            ("08006", Problem::Unreachable),
            ("57P03", Problem::Unreachable),
            ("28P01", Problem::Refused),
            ("55P03", Problem::Busy),
            ("40P01", Problem::Collided),
            ("XX001", Problem::Damaged),
            ("23505", Problem::Fault),
        ] {
            assert_eq!(problem(code), expected, "{code}");
        }
    }
}

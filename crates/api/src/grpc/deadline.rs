//! How long a caller waits.

use std::time::{Duration, Instant};

use model::ErrorCode;
use serving::Error;
use tonic::metadata::MetadataMap;

/// When the call's own time is up, from its `grpc-timeout`; `None` if it has no limit.
pub(super) fn of_call(metadata: &MetadataMap) -> Result<Option<Instant>, Error> {
    let Some(text) = metadata.get("grpc-timeout") else { return Ok(None) };
    let timeout = text.to_str().ok().and_then(parse).ok_or_else(|| {
        let message =
            "grpc-timeout is not a number of at most 8 digits and one of H, M, S, m, u, n";
        Error::new(ErrorCode::InvalidArgument, message)
    })?;
    Ok(Instant::now().checked_add(timeout))
}

/// The earlier of two moments.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        for wrong in ["", "5", "m", "+5m", "5.0S", "123456789n", "5x", "5é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_earlier_moment_counts() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(earlier(Some(later), Some(now)), Some(now));
        assert_eq!(earlier(None, Some(now)), Some(now));
        assert_eq!(earlier(None, None), None);
    }
}

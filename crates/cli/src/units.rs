//! Durations and quantities as people write and read them.

use std::time::Duration;

/// Reads `500us`, `50ms`, `10s`, `2m`, `1h`, `7d`; a number alone is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_alphabetic() || c == 'µ').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("\"{unit}\" is not a unit of time: use us, ms, s, m, h or d")),
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("\"{text}\" is not a duration such as 500ms, 10s or 2m"))?;
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| format!("\"{text}\" is negative or too long"))
}

/// Three digits and a unit: `1.23 ms`.
pub fn duration(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (value, unit) = match nanos {
        n if n < 999.5 => return format!("{} ns", n as u64),
        n if n < 999_500.0 => (n / 1e3, "µs"),
        n if n < 999_500_000.0 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// A whole number with its thousands apart: `12,288`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes: `20.9 MB` (powers of 1000).
pub fn bytes(number: u64) -> String {
    match number as f64 {
        n if n < 1e3 => format!("{number} bytes"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_units() {
        for (text, millis) in [("500us", 0.5), ("50ms", 50.0), ("1.5", 1500.0), ("2m", 120_000.0)] {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64() * 1e3, millis, "{text}");
        }
        for wrong in ["", "ms", "-1s", "3 parsecs", "1e99h", "NaN"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn quantities_are_short() {
        let nanos = |n| duration(Duration::from_nanos(n));
        assert_eq!(nanos(950), "950 ns");
        assert_eq!(nanos(1_234), "1.23 µs");
        assert_eq!(nanos(12_345_678), "12.3 ms");
        assert_eq!(nanos(999_999), "1.00 ms");
        assert_eq!(nanos(123_456_789_000), "123 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(20_899_856), "20.9 MB");
    }
}

//! Floating-point numbers as TensorFlow Serving prints them.

use crate::rest::json::non_finite;

/// A type that TensorFlow Serving prints with its own precision.
pub(super) trait Decimal: zmij::Float + Into<f64> + std::fmt::LowerExp + Copy {
    /// Decimal digits that tell any two values apart.
    const DIGITS: usize;
}

impl Decimal for f32 {
    const DIGITS: usize = 9;
}

impl Decimal for f64 {
    const DIGITS: usize = 17;
}

/// Six significant digits where those read back as the same value, else as many as tell any two
/// values apart; `.0` behind whole numbers, an exponent below 1e-4 and from the precision on.
pub(super) fn write_decimal<T: Decimal>(out: &mut Vec<u8>, value: T) {
    let wide: f64 = value.into();
    if !wide.is_finite() {
        out.extend_from_slice(non_finite(wide).as_bytes());
        return;
    }
    let shortest = format!("{value:e}");
    let (mantissa, _) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let (precision, text) = if digits <= 6 {
        (6, shortest)
    } else {
        (T::DIGITS as i32, format!("{value:.*e}", T::DIGITS - 1))
    };
    layout(out, &text, precision);
}

/// Lays out `d.ddde±x` as C's `%g` does.
fn layout(out: &mut Vec<u8>, text: &str, precision: i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let kept = digits.trim_end_matches('0');
    let digits = if kept.is_empty() { "0" } else { kept };
    out.extend_from_slice(sign.as_bytes());
    if exponent < -4 || exponent >= precision {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let minus = if exponent < 0 { '-' } else { '+' };
        let power = exponent.unsigned_abs();
        out.extend_from_slice(format!("{first}{point}{rest}e{minus}{power:02}").as_bytes());
    } else if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        out.extend_from_slice(format!("0.{zeros}{digits}").as_bytes());
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            out.extend_from_slice(format!("{digits:0<whole$}.0").as_bytes());
        } else {
            let (before, after) = digits.split_at(whole);
            out.extend_from_slice(format!("{before}.{after}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print<T: Decimal>(value: T) -> String {
        let mut out = Vec::new();
        write_decimal(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_look_as_in_tensorflow_serving() {
        // Each made with C's printf: %g where that reads back, else %.9g or %.17g.
        for (value, text) in [
            (0.2f32, "0.2"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (123456.0, "123456.0"),
            (9_000_000.0, "9e+06"),
            (0.00003, "3e-05"),
            (0.0001, "0.0001"),
            (0.99999917, "0.999999166"),
            (1234567.0, "1234567.0"),
            (16777216.0, "16777216.0"),
            (-2.5, "-2.5"),
            (1.0 / 3.0, "0.333333343"),
            (f32::MAX, "3.40282347e+38"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(print(value), text);
        }
        assert_eq!(print(1.0f64 / 3.0), "0.33333333333333331");
        assert_eq!(print(0.1f64), "0.1");
        assert_eq!(print(1e300f64), "1e+300");
    }
}

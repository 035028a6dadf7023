//! Numbers: from text to exactly rounded values, in one pass over the digits.

/// Why text is not the number that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not a number at all, or not one that JSON allows.
    Syntax,
    /// A number that the type cannot hold.
    Range,
    /// A fraction or an exponent where an integer is wanted.
    Fraction,
}

/// A number's digits, read but not yet rounded to a type.
struct Digits {
    /// All digits as one integer; meaningless if there were more than [`EXACT_DIGITS`].
    mantissa: u64,
    /// The power of ten that the mantissa is to be multiplied with.
    exponent: i32,
    /// How many digits there were, leading zeros included.
    count: usize,
    negative: bool,
    /// Where the number ends.
    end: usize,
}

/// As many decimal digits always fit an `i64`, which turns into a double in one instruction.
const EXACT_DIGITS: usize = 18;

/// The powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Their reciprocals, rounded: multiplying with one is several times faster than dividing.
const RECIPROCALS: [f64; 23] = {
    let mut reciprocals = [1.0; 23];
    let mut index = 0;
    while index < 23 {
        reciprocals[index] = 1.0 / POWERS[index];
        index += 1;
    }
    reciprocals
};

#[inline(always)]
fn digit(bytes: &[u8], at: usize) -> Option<u64> {
    let value = bytes.get(at)?.wrapping_sub(b'0');
    (value < 10).then_some(u64::from(value))
}

/// Eight ASCII digits as a number, if all eight bytes are digits: a few multiplications instead
/// of eight dependent ones.
#[inline(always)]
fn eight_digits(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    let text = u64::from_le_bytes(chunk);
    let low = text.wrapping_add(0x4646_4646_4646_4646);
    let high = text.wrapping_sub(0x3030_3030_3030_3030);
    if (low | high) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    // Neighbouring digits become pairs, pairs become fours, fours become the eight.
    let pairs = (high & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    Some((fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32)
}

/// Reads the digits of a JSON number.
#[inline(always)]
fn digits(bytes: &[u8], start: usize) -> Result<Digits, Refusal> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let mut mantissa = digit(bytes, first).ok_or(Refusal::Syntax)?;
    let mut at = first + 1;
    if mantissa != 0 {
        while let Some(next) = digit(bytes, at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(next);
            at += 1;
        }
    } else if digit(bytes, at).is_some() {
        return Err(Refusal::Syntax);
    }
    let mut count = at - first;
    let mut exponent = 0i32;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let fraction = at;
        while let Some(eight) = eight_digits(bytes, at) {
            mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
            at += 8;
        }
        while let Some(next) = digit(bytes, at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(next);
            at += 1;
        }
        if at == fraction {
            return Err(Refusal::Syntax);
        }
        count += at - fraction;
        exponent = -i32::try_from(at - fraction).unwrap_or(i32::MAX);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let (written, end) = written_exponent(bytes, at + 1)?;
        exponent = exponent.saturating_add(written);
        at = end;
    }
    Ok(Digits { mantissa, exponent, count, negative, end: at })
}

/// The exponent after an `e`, and where it ends. Saturates: beyond a few hundred nothing changes.
#[cold]
fn written_exponent(bytes: &[u8], start: usize) -> Result<(i32, usize), Refusal> {
    let negative = bytes.get(start) == Some(&b'-');
    let mut at = start + usize::from(matches!(bytes.get(start), Some(b'-' | b'+')));
    let first = at;
    let mut value = 0i32;
    while let Some(next) = digit(bytes, at) {
        value = (value * 10 + next as i32).min(100_000_000);
        at += 1;
    }
    if at == first {
        return Err(Refusal::Syntax);
    }
    Ok((if negative { -value } else { value }, at))
}

/// The nearest FP32 to the JSON number at `start`, and where the number ends.
///
/// The digits are rounded to a double by three roundings (of the mantissa, of a reciprocal, of the
/// product), which is at most three units of error in its last place. Rounding that to 24 bits
/// gives the nearest FP32 unless the double lies within that error of the middle between two of
/// them; then, and outside of FP32's normal range, the exact algorithm decides.
#[inline(always)]
pub(super) fn float32(bytes: &[u8], start: usize) -> Result<(f32, usize), Refusal> {
    let number = digits(bytes, start)?;
    if number.count <= EXACT_DIGITS && number.exponent.unsigned_abs() <= 22 {
        let power = number.exponent.unsigned_abs() as usize;
        let factor = if number.exponent < 0 { RECIPROCALS[power] } else { POWERS[power] };
        let value = number.mantissa as i64 as f64 * factor;
        let from_middle = (value.to_bits() & 0x1fff_ffff).wrapping_sub(0x1000_0000 - 4);
        let normal = (f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&value);
        if from_middle > 8 && normal || number.mantissa == 0 {
            let value = value as f32;
            return Ok((if number.negative { -value } else { value }, number.end));
        }
    }
    exactly(&bytes[start..number.end]).map(|value| (value, number.end))
}

/// The nearest FP64 to the JSON number at `start`, and where the number ends.
#[inline(always)]
pub(super) fn float64(bytes: &[u8], start: usize) -> Result<(f64, usize), Refusal> {
    let number = digits(bytes, start)?;
    // With both operands exact, the one rounding of the operation is the right one.
    if number.count <= EXACT_DIGITS
        && number.mantissa <= 1 << 53
        && number.exponent.unsigned_abs() <= 22
    {
        let power = POWERS[number.exponent.unsigned_abs() as usize];
        let mantissa = number.mantissa as i64 as f64;
        let value = if number.exponent < 0 { mantissa / power } else { mantissa * power };
        return Ok((if number.negative { -value } else { value }, number.end));
    }
    exactly(&bytes[start..number.end]).map(|value| (value, number.end))
}

/// The nearest value, by an algorithm that is right everywhere.
#[cold]
fn exactly<T: fast_float2::FastFloat + Into<f64> + Copy>(text: &[u8]) -> Result<T, Refusal> {
    let value: T = fast_float2::parse(text).map_err(|_| Refusal::Syntax)?;
    if value.into().is_finite() { Ok(value) } else { Err(Refusal::Range) }
}

/// The JSON integer at `start` as `T`, and where it ends.
#[inline(always)]
pub(super) fn integer<T: TryFrom<i128>>(bytes: &[u8], start: usize) -> Result<(T, usize), Refusal> {
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let mut magnitude = digit(bytes, first).ok_or(Refusal::Syntax)?;
    let mut at = first + 1;
    if magnitude == 0 && digit(bytes, at).is_some() {
        return Err(Refusal::Syntax);
    }
    let mut fits = true;
    while let Some(next) = digit(bytes, at) {
        let longer = magnitude.checked_mul(10).and_then(|m| m.checked_add(next));
        fits &= longer.is_some();
        magnitude = longer.unwrap_or(0);
        at += 1;
    }
    if let Some(b'.' | b'e' | b'E') = bytes.get(at) {
        digits(bytes, start)?;
        return Err(Refusal::Fraction);
    }
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    match T::try_from(value) {
        Ok(value) if fits => Ok((value, at)),
        _ => Err(Refusal::Range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn f32_of(text: &str) -> Result<f32, Refusal> {
        float32(text.as_bytes(), 0).map(|(value, end)| {
            assert_eq!(end, text.len(), "{text}");
            value
        })
    }

    #[test]
    fn what_json_does_not_call_a_number_is_refused() {
        for text in
            ["", "-", "+1", ".5", "1.", "1.e3", "01", "-01", "1e", "1e+", "nan", "inf", "--1"]
        {
            assert_eq!(f32_of(text), Err(Refusal::Syntax), "{text}");
            assert_eq!(float64(text.as_bytes(), 0).err(), Some(Refusal::Syntax), "{text}");
        }
        for text in ["", "-", "+1", "01", "x"] {
            assert_eq!(integer::<i64>(text.as_bytes(), 0), Err(Refusal::Syntax), "{text}");
        }
    }

    #[test]
    fn out_of_range_is_refused_and_too_small_is_zero() {
        assert_eq!(f32_of("1e39"), Err(Refusal::Range));
        assert_eq!(f32_of("-3.5e38"), Err(Refusal::Range));
        assert_eq!(f32_of("3.4028235e38"), Ok(f32::MAX));
        assert_eq!(f32_of("1e-60"), Ok(0.0));
        assert_eq!(f32_of("1e-45"), Ok(f32::from_bits(1)));
        assert_eq!(float64(b"1e309", 0), Err(Refusal::Range));
        assert_eq!(float64(b"1e999999999999", 0), Err(Refusal::Range));
        assert_eq!(integer::<u8>(b"256", 0), Err(Refusal::Range));
        assert_eq!(integer::<u8>(b"-1", 0), Err(Refusal::Range));
        assert_eq!(integer::<i64>(b"9223372036854775808", 0), Err(Refusal::Range));
        assert_eq!(integer::<i64>(b"-9223372036854775808", 0), Ok((i64::MIN, 20)));
        assert_eq!(integer::<u64>(b"18446744073709551615", 0), Ok((u64::MAX, 20)));
        assert_eq!(integer::<u64>(b"184467440737095516150", 0), Err(Refusal::Range));
        assert_eq!(integer::<i32>(b"1.0", 0), Err(Refusal::Fraction));
        assert_eq!(integer::<i32>(b"1e2", 0), Err(Refusal::Fraction));
    }

    #[test]
    fn the_middle_between_two_neighbours_rounds_to_even() {
        // 1 + 2^-24 is the exact middle between 1 and the next FP32; a digit more decides.
        assert_eq!(f32_of("1.000000059604644775390625"), Ok(1.0));
        assert_eq!(
            f32_of("1.000000059604644775"),
            "1.000000059604644775".parse().map_err(|_| Refusal::Syntax)
        );
        assert_eq!(f32_of("1.0000000596046447754"), Ok(1.000_000_1));
        assert_eq!(f32_of("-0.0").map(f32::to_bits), Ok((-0.0f32).to_bits()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn floats_round_as_the_standard_library_does(bits in any::<u32>(), more in 0usize..20) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value:?}"), format!("{:?}", f64::from(value)), format!("{value:.more$e}")] {
                let expected: f32 = text.parse().unwrap();
                if expected.is_finite() {
                    prop_assert_eq!(f32_of(&text).map(f32::to_bits), Ok(expected.to_bits()), "{}", text);
                }
            }
        }

        #[test]
        fn decimals_round_as_the_standard_library_does(mantissa in any::<u64>(), exponent in -60i32..15, point in 0usize..20) {
            let mut digits = mantissa.to_string();
            if point > 0 && point < digits.len() {
                digits.insert(point, '.');
            }
            let text = format!("{digits}e{exponent}");
            prop_assert_eq!(f32_of(&text).unwrap(), text.parse::<f32>().unwrap());
            let plain = digits;
            prop_assert_eq!(f32_of(&plain).unwrap(), plain.parse::<f32>().unwrap());
            prop_assert_eq!(float64(text.as_bytes(), 0).unwrap().0, text.parse::<f64>().unwrap());
            prop_assert_eq!(float64(plain.as_bytes(), 0).unwrap().0, plain.parse::<f64>().unwrap());
        }

        #[test]
        fn near_the_middle_it_still_rounds_right(bits in 0x0080_0000u32..0x7f00_0000, digits in 8usize..24) {
            let (a, b) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = (f64::from(a) + f64::from(b)) / 2.0;
            let text = format!("{middle:.digits$e}");
            prop_assert_eq!(f32_of(&text).unwrap(), text.parse::<f32>().unwrap(), "{}", text);
        }
    }
}

//! Where in a trace a request is: W3C Trace Context, and whether it is recorded.

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace's id; never all zeros.
    pub trace_id: [u8; 16],
    /// The id of the span that is meant; never all zeros.
    pub span_id: [u8; 8],
    /// Whether whoever is before us records it.
    pub sampled: bool,
    /// What other systems have put beside, as it came.
    pub state: String,
}

impl Context {
    /// Reads a `traceparent`, and the `tracestate` beside it if there is one. What is not valid is
    /// as if it was not there, as the specification has it.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let parent = parent.trim();
        let (version, rest) = parent.split_once('-')?;
        let version = *hex::<1>(version)?.first()?;
        // Later versions may have more behind it.
        let mut parts = rest.splitn(4, '-');
        let (trace_id, span_id) = (hex::<16>(parts.next()?)?, hex::<8>(parts.next()?)?);
        let [flags] = hex::<1>(parts.next()?)?;
        let is_valid = version != 0xff && (version > 0 || parts.next().is_none());
        let is_set = trace_id != [0; 16] && span_id != [0; 8];
        let state = state.map(str::trim).filter(|state| state.len() <= 512).unwrap_or_default();
        (is_valid && is_set).then(|| Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
            state: state.to_owned(),
        })
    }

    /// The trace's id in hexadecimal digits.
    pub fn trace_id_text(&self) -> String {
        text(&self.trace_id)
    }

    /// The span's id in hexadecimal digits.
    pub fn span_id_text(&self) -> String {
        text(&self.span_id)
    }
}

/// An id in hexadecimal digits.
pub fn text(id: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = id.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Bytes from lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// Which requests are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether whoever calls decides, where it says so.
    pub follows_parent: bool,
    /// Part of the traces that are recorded where nobody has decided.
    pub ratio: f64,
}

impl Sampler {
    /// Whether a request is recorded: its caller's context, and the trace's id.
    pub fn records(&self, parent: Option<&Context>, trace_id: &[u8; 16]) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.sampled,
            _ => is_within(trace_id, self.ratio),
        }
    }
}

/// Every program that samples this part of the traces chooses the same: the last 7 bytes of the id
/// are the ones that the specification has be random.
fn is_within(trace_id: &[u8; 16], ratio: f64) -> bool {
    let [.., a, b, c, d, e, f, g] = *trace_id;
    let random = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
    // Whole numbers: as a fraction the largest would be rounded up to 1.
    random < (ratio * (1u64 << 56) as f64) as u64
}

/// A new id.
pub fn trace_id() -> [u8; 16] {
    (fastrand::u128(..).max(1)).to_be_bytes()
}

/// A new id.
pub fn span_id() -> [u8; 8] {
    (fastrand::u64(..).max(1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_specifications_example_is_read() {
        let context = Context::parse(PARENT, Some(" congo=t61rcWkgMzE ")).unwrap();
        assert_eq!(context.trace_id_text(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id_text(), "b7ad6b7169203331");
        assert!(context.sampled);
        assert_eq!(context.state, "congo=t61rcWkgMzE");
        assert!(!Context::parse(&PARENT.replace("-01", "-00"), None).unwrap().sampled);
        // Flags that are not known yet, and a later version with more behind it.
        assert!(Context::parse(&PARENT.replace("-01", "-ff"), None).unwrap().sampled);
        let later = format!("cc{}-what-the-future-holds", &PARENT[2..]);
        assert!(Context::parse(&later, None).is_some());
    }

    #[test]
    fn what_is_not_valid_is_as_if_it_was_not_there() {
        for wrong in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(Context::parse(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn the_caller_decides_if_it_is_followed() {
        let mut parent = Context::parse(PARENT, None).unwrap();
        let none = Sampler { follows_parent: true, ratio: 0.0 };
        assert!(none.records(Some(&parent), &parent.trace_id));
        assert!(!none.records(None, &parent.trace_id));
        parent.sampled = false;
        let all = Sampler { follows_parent: true, ratio: 1.0 };
        assert!(!all.records(Some(&parent), &parent.trace_id));
        assert!(all.records(None, &[0xff; 16]));
        assert!(Sampler { follows_parent: false, ratio: 1.0 }.records(Some(&parent), &[0xff; 16]));
    }

    #[test]
    fn the_part_of_the_traces_is_the_ratio() {
        fastrand::seed(7);
        let sampler = Sampler { follows_parent: true, ratio: 0.1 };
        let recorded = (0..20_000).filter(|_| sampler.records(None, &trace_id())).count();
        assert!((1_800..2_200).contains(&recorded), "{recorded}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in ".{0,80}") {
            Context::parse(&text, Some(&text));
        }
    }
}

//! A pull reader over a body in memory.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use super::number::{self, Refusal};

/// What is wrong with the JSON, and where: an offset in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) message: String,
    pub(crate) offset: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {} of the JSON)", self.message, self.offset)
    }
}

/// Whether `NaN`, `Infinity` and `-Infinity` are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonFinite {
    /// As RFC 8259 has it.
    Refused,
    /// As TensorFlow Serving has it.
    Allowed,
}

/// The deepest nesting that is read, in values of no interest too.
const MAX_DEPTH: usize = 64;

/// Objects with more members than this remember their keys in a set.
const FEW_KEYS: usize = 16;

/// Reads one JSON text from front to back.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    non_finite: NonFinite,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], non_finite: NonFinite) -> Self {
        Self { bytes, at: 0, depth: 0, non_finite }
    }

    /// A reader of the same text that starts at a value seen before.
    pub(crate) fn at_value(&self, span: &Range<usize>) -> Self {
        Self { at: span.start, ..*self }
    }

    /// Where the reader is, for [`at_value`](Self::at_value).
    pub(crate) fn here(&self) -> Range<usize> {
        self.at..self.at
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn set_position(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn non_finite(&self) -> NonFinite {
        self.non_finite
    }

    /// An error at the reader's position.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error { message: message.into(), offset: self.at }
    }

    /// "expected X, got Y", Y being what is here.
    #[cold]
    pub(crate) fn unexpected(&self, expected: &str) -> Error {
        self.error(format!("expected {expected}, got {}", describe(self.bytes, self.at)))
    }

    /// The next byte that is not white space, left where it is.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Takes the next byte if it is this one.
    #[inline(always)]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Refuses anything but white space after the value.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the JSON")),
        }
    }

    fn enter(&mut self) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        Ok(())
    }

    /// Reads an object, calling `member` with the reader before each value. A key given twice is
    /// refused: the two readers of such a request would see two different requests.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.take(b'{') {
            return Err(self.unexpected("an object"));
        }
        self.enter()?;
        let mut keys = Keys::default();
        if !self.take(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a key in double quotes"));
                }
                let start = self.at;
                let key = self.string()?;
                if !keys.insert(key.clone()) {
                    let message = format!("the key {} is given twice", quote(&key));
                    return Err(Error { message, offset: start });
                }
                if !self.take(b':') {
                    return Err(self.unexpected("a colon after the key"));
                }
                member(self, &key)?;
                if self.take(b',') {
                    continue;
                }
                if self.take(b'}') {
                    break;
                }
                return Err(self.unexpected("a comma or the end of the object"));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array, calling `element` with the reader and the index before each value.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.take(b'[') {
            return Err(self.unexpected("an array"));
        }
        self.enter()?;
        if !self.take(b']') {
            for index in 0.. {
                element(self, index)?;
                if self.take(b',') {
                    continue;
                }
                if self.take(b']') {
                    break;
                }
                return Err(self.unexpected("a comma or the end of the array"));
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let span = self.string_span()?;
        match span {
            Text::Plain(range) => {
                let text = std::str::from_utf8(&self.bytes[range.clone()]);
                text.map(Cow::Borrowed).map_err(|error| Error {
                    message: "the string is not UTF-8".into(),
                    offset: range.start + error.valid_up_to(),
                })
            }
            Text::Escaped(text) => Ok(Cow::Owned(text)),
        }
    }

    /// Reads a string that is checked to be UTF-8, as a range of the text where it has no escapes.
    pub(super) fn text(&mut self) -> Result<Text, Error> {
        let text = self.string_span()?;
        if let Text::Plain(range) = &text
            && let Err(error) = std::str::from_utf8(&self.bytes[range.clone()])
        {
            let offset = range.start + error.valid_up_to();
            return Err(Error { message: "the string is not UTF-8".into(), offset });
        }
        Ok(text)
    }

    fn string_span(&mut self) -> Result<Text, Error> {
        if !self.take(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Text::Plain(start..self.at - 1));
                }
                Some(b'\\') => return self.escaped(start).map(Text::Escaped),
                Some(0..0x20) => return Err(self.error("a control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the JSON ends inside a string")),
            }
        }
    }

    /// The rest of a string that has escapes.
    fn escaped(&mut self, start: usize) -> Result<String, Error> {
        let mut text = Vec::with_capacity(self.at - start + 16);
        let mut plain = start;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    text.extend_from_slice(&self.bytes[plain..self.at]);
                    self.at += 1;
                    return String::from_utf8(text).map_err(|_| Error {
                        message: "the string is not UTF-8".into(),
                        offset: start,
                    });
                }
                Some(b'\\') => {
                    text.extend_from_slice(&self.bytes[plain..self.at]);
                    self.at += 1;
                    let character = self.escape()?;
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    plain = self.at;
                }
                Some(0..0x20) => return Err(self.error("a control character in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the JSON ends inside a string")),
            }
        }
    }

    /// The character that an escape stands for; the backslash has been read.
    fn escape(&mut self) -> Result<char, Error> {
        let escape = self.bytes.get(self.at).copied();
        self.at += 1;
        Ok(match escape {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'u') => {
                let first = self.four_hex()?;
                let code = match first {
                    0xd800..0xdc00 if self.bytes[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        let second = self.four_hex()?;
                        if !(0xdc00..0xe000).contains(&second) {
                            return Err(self.error("half of a surrogate pair in a string"));
                        }
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code)
                    .ok_or_else(|| self.error("half of a surrogate pair in a string"))?
            }
            _ => {
                self.at -= 1;
                return Err(self.error("an escape that JSON does not have"));
            }
        })
    }

    fn four_hex(&mut self) -> Result<u32, Error> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let digits = digits.filter(|text| text.iter().all(u8::is_ascii_hexdigit));
        let value = digits
            .and_then(|text| std::str::from_utf8(text).ok())
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or_else(|| self.error("\\u needs four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    /// Reads an integer.
    pub(crate) fn integer<T: TryFrom<i128>>(&mut self) -> Result<T, Error> {
        self.peek();
        match number::integer(self.bytes, self.at) {
            Ok((value, end)) => {
                self.at = end;
                Ok(value)
            }
            Err(Refusal::Range) => Err(self.unexpected("an integer of a smaller size")),
            Err(_) => Err(self.unexpected("an integer")),
        }
    }

    /// Reads `true` or `false`.
    pub(crate) fn boolean(&mut self) -> Result<bool, Error> {
        self.peek();
        for (text, value) in [("true", true), ("false", false)] {
            if self.bytes[self.at..].starts_with(text.as_bytes()) {
                self.at += text.len();
                return Ok(value);
            }
        }
        Err(self.unexpected("true or false"))
    }

    /// Takes this word if it comes next.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Reads past any value, checking it, and says where it was.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>, Error> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'{') => self.object(|reader, _| reader.skip().map(drop))?,
            Some(b'[') => self.array(|reader, _| reader.skip().map(drop))?,
            Some(b'"') => drop(self.text()?),
            Some(b't' | b'f') => drop(self.boolean()?),
            Some(b'n') if self.word("null") => {}
            Some(b'N' | b'I' | b'-') if self.skip_non_finite() => {}
            Some(b'-' | b'0'..=b'9') => match number::float64(self.bytes, self.at) {
                Ok((_, end)) => self.at = end,
                // A number beyond FP64 is fine as long as nobody wants it.
                Err(Refusal::Range) => self.at += number_length(&self.bytes[self.at..]),
                Err(_) => return Err(self.unexpected("a number")),
            },
            _ => return Err(self.unexpected("a value")),
        }
        Ok(start..self.at)
    }

    fn skip_non_finite(&mut self) -> bool {
        self.non_finite == NonFinite::Allowed
            && ["NaN", "Infinity", "-Infinity"].iter().any(|word| self.word(word))
    }
}

/// A string's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// As it stands in the text.
    Plain(Range<usize>),
    /// With its escapes replaced.
    Escaped(String),
}

/// The keys of one object.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// Whether the key is new.
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < FEW_KEYS {
            self.few.push(key);
            return true;
        }
        self.many.insert(key)
    }
}

fn number_length(bytes: &[u8]) -> usize {
    let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    bytes.iter().position(|b| !is_part(b)).unwrap_or(bytes.len())
}

/// A string in double quotes, cut short if it is long, for messages.
pub(crate) fn quote(text: &str) -> String {
    let mut characters = text.chars();
    let short: String = characters.by_ref().take(40).collect();
    let more = if characters.next().is_some() { "…" } else { "" };
    format!("{:?}", format!("{short}{more}"))
}

/// What is at a position, in a few words, for messages.
pub(super) fn describe(bytes: &[u8], at: usize) -> String {
    let rest = &bytes[at.min(bytes.len())..];
    let word = |length: usize| String::from_utf8_lossy(&rest[..length]).into_owned();
    match rest.first() {
        None => "the end of the JSON".into(),
        Some(b'"') => {
            let closing = rest[1..].iter().position(|b| *b == b'"').unwrap_or(rest.len() - 1);
            format!("the string {}", quote(&String::from_utf8_lossy(&rest[1..1 + closing])))
        }
        Some(b'[') => "an array".into(),
        Some(b'{') => "an object".into(),
        Some(b'-' | b'+' | b'.' | b'0'..=b'9') => {
            format!("the number {}", word(number_length(rest).clamp(1, 40)))
        }
        Some(letter) if letter.is_ascii_alphabetic() => {
            let length = rest.iter().take(20).take_while(|b| b.is_ascii_alphanumeric()).count();
            word(length)
        }
        Some(byte) if byte.is_ascii_graphic() => format!("'{}'", char::from(*byte)),
        Some(byte) => format!("the byte 0x{byte:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(text, NonFinite::Refused);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, message) in [
            ("", "expected a value, got the end of the JSON (at byte 0 of the JSON)"),
            ("{\"a\": 1, \"a\": 2}", "the key \"a\" is given twice (at byte 9 of the JSON)"),
            ("{\"a\": 1,}", "expected a key in double quotes, got '}'"),
            ("[1 2]", "expected a comma or the end of the array, got the number 2"),
            ("[NaN]", "expected a value, got NaN"),
            ("[1] x", "expected the end of the JSON, got x"),
            ("\"a\\x\"", "an escape that JSON does not have"),
            ("\"\\ud800\"", "half of a surrogate pair"),
            ("\"a\nb\"", "a control character in a string"),
            ("\"abc", "the JSON ends inside a string"),
            ("[01]", "expected a number, got the number 01"),
        ] {
            let error = check(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(check(&[b"[\"".as_slice(), &[0xff], b"\"]"].concat()).is_err());
    }

    #[test]
    fn keys_that_differ_only_in_escapes_are_the_same_key() {
        assert!(check(br#"{"a": 1, "\u0061": 2}"#).is_err());
        let many: Vec<String> = (0..100).map(|i| format!("\"k{i}\": {i}")).collect();
        assert_eq!(check(format!("{{{}}}", many.join(",")).as_bytes()), Ok(()));
        assert!(check(format!("{{{}, \"k99\": 0}}", many.join(",")).as_bytes()).is_err());
    }

    #[test]
    fn depth_is_limited() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nest = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
            assert_eq!(check(nest(MAX_DEPTH).as_bytes()), Ok(()));
            assert!(check(nest(MAX_DEPTH + 1).as_bytes()).unwrap_err().message.contains("deeper"));
            assert!(check(nest(100_000).as_bytes()).is_err());
        }
    }

    #[test]
    fn escapes_are_replaced() {
        let mut reader = Reader::new(br#""\u00e9\n\ud83d\ude00\/""#, NonFinite::Refused);
        assert_eq!(reader.string().unwrap(), "é\n😀/");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes);
        }

        #[test]
        fn accepts_and_refuses_what_serde_json_does(
            text in r#"[\[\]{}",:0-9eE+\-. \\untrfalse]{0,24}"#,
        ) {
            let ours = check(text.as_bytes());
            // serde_json keeps the last of two equal keys and has no number beyond FP64; neither
            // can be told apart from other errors, so only what we accept is compared.
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            if ours.is_ok() {
                prop_assert!(theirs.is_ok() || theirs.unwrap_err().to_string().contains("out of range"), "{}", text);
            } else if theirs.is_ok() {
                prop_assert!(ours.unwrap_err().message.contains("twice"), "{}", text);
            }
        }
    }
}

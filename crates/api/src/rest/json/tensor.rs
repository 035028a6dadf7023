//! Arrays of JSON, flat or nested, straight into typed buffers.

use base64::Engine;
use bytes::Bytes;
use model::{Data, DataType, bf16, f16};

use super::number::{self, Refusal};
use super::reader::{Error, NonFinite, Reader, Text};
use crate::refusals::MAX_RANK;

/// Elements of one type, read from any number of JSON values.
pub(crate) enum Elements {
    Bool(Vec<u8>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp16(Vec<f16>),
    Bf16(Vec<bf16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bytes(Vec<Bytes>),
}

/// Makes each variant alike, for each is a vector.
macro_rules! each {
    ($elements:expr, $vec:ident => $value:expr) => {
        match $elements {
            Elements::Bool($vec) | Elements::Uint8($vec) => $value,
            Elements::Uint16($vec) => $value,
            Elements::Uint32($vec) => $value,
            Elements::Uint64($vec) => $value,
            Elements::Int8($vec) => $value,
            Elements::Int16($vec) => $value,
            Elements::Int32($vec) => $value,
            Elements::Int64($vec) => $value,
            Elements::Fp16($vec) => $value,
            Elements::Bf16($vec) => $value,
            Elements::Fp32($vec) => $value,
            Elements::Fp64($vec) => $value,
            Elements::Bytes($vec) => $value,
        }
    };
}

impl Elements {
    pub(crate) fn new(datatype: DataType) -> Self {
        match datatype {
            DataType::Bool => Self::Bool(Vec::new()),
            DataType::Uint8 => Self::Uint8(Vec::new()),
            DataType::Uint16 => Self::Uint16(Vec::new()),
            DataType::Uint32 => Self::Uint32(Vec::new()),
            DataType::Uint64 => Self::Uint64(Vec::new()),
            DataType::Int8 => Self::Int8(Vec::new()),
            DataType::Int16 => Self::Int16(Vec::new()),
            DataType::Int32 => Self::Int32(Vec::new()),
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::Fp16 => Self::Fp16(Vec::new()),
            DataType::Bf16 => Self::Bf16(Vec::new()),
            DataType::Fp32 => Self::Fp32(Vec::new()),
            DataType::Fp64 => Self::Fp64(Vec::new()),
            DataType::Bytes => Self::Bytes(Vec::new()),
        }
    }

    /// Makes room for the elements that are announced, as far as the text can hold them: an
    /// element and its comma are two bytes, so a lie costs no more than the text did.
    fn reserve(&mut self, announced: usize, text_bytes: usize) {
        let count = announced.min(text_bytes / 2 + 1);
        each!(self, vec => vec.reserve(count));
    }

    /// Reads one value, an element or arrays of them, and returns its extents: none for a single
    /// element. `body` is what the reader reads, so that strings can be borrowed from it; `label`
    /// is what messages call the value.
    pub(crate) fn read(
        &mut self,
        reader: &mut Reader<'_>,
        body: &Bytes,
        label: &'static str,
    ) -> Result<Vec<usize>, Error> {
        let mut extents = Extents::new(label);
        if reader.take(b'[') {
            extents.level(reader, 0, &mut |reader| self.read_run(reader, body, usize::MAX))?;
        } else {
            self.read_run(reader, body, 1).map_err(|(_, error)| labelled(error, label))?;
        }
        Ok(extents.finish())
    }

    /// The elements as tensor data.
    pub(crate) fn finish(self) -> Data {
        match self {
            Self::Bool(vec) => Data::Bool(vec.into()),
            Self::Uint8(vec) => vec.into(),
            Self::Uint16(vec) => vec.into(),
            Self::Uint32(vec) => vec.into(),
            Self::Uint64(vec) => vec.into(),
            Self::Int8(vec) => vec.into(),
            Self::Int16(vec) => vec.into(),
            Self::Int32(vec) => vec.into(),
            Self::Int64(vec) => vec.into(),
            Self::Fp16(vec) => vec.into(),
            Self::Bf16(vec) => vec.into(),
            Self::Fp32(vec) => vec.into(),
            Self::Fp64(vec) => vec.into(),
            Self::Bytes(vec) => vec.into(),
        }
    }

    /// Reads elements and the commas between them until something else comes, at most `limit`.
    /// An error comes with the number of elements before it.
    fn read_run(&mut self, reader: &mut Reader<'_>, body: &Bytes, limit: usize) -> Run {
        use number::{float32, float64, integer};
        match self {
            Self::Bool(vec) => numbers(reader, vec, limit, "BOOL (true or false)", None, boolean),
            Self::Uint8(vec) => numbers(reader, vec, limit, "UINT8", None, integer),
            Self::Uint16(vec) => numbers(reader, vec, limit, "UINT16", None, integer),
            Self::Uint32(vec) => numbers(reader, vec, limit, "UINT32", None, integer),
            Self::Uint64(vec) => numbers(reader, vec, limit, "UINT64", None, integer),
            Self::Int8(vec) => numbers(reader, vec, limit, "INT8", None, integer),
            Self::Int16(vec) => numbers(reader, vec, limit, "INT16", None, integer),
            Self::Int32(vec) => numbers(reader, vec, limit, "INT32", None, integer),
            Self::Int64(vec) => numbers(reader, vec, limit, "INT64", None, integer),
            Self::Fp16(vec) => {
                numbers(reader, vec, limit, "FP16", Some(f16::from_f64), |bytes, at| {
                    let (value, end) = float64(bytes, at)?;
                    let value = f16::from_f64(value);
                    if value.is_finite() { Ok((value, end)) } else { Err(Refusal::Range) }
                })
            }
            Self::Bf16(vec) => {
                numbers(reader, vec, limit, "BF16", Some(bf16::from_f64), |bytes, at| {
                    let (value, end) = float64(bytes, at)?;
                    let value = bf16::from_f64(value);
                    if value.is_finite() { Ok((value, end)) } else { Err(Refusal::Range) }
                })
            }
            Self::Fp32(vec) => numbers(reader, vec, limit, "FP32", Some(|v| v as f32), float32),
            Self::Fp64(vec) => numbers(reader, vec, limit, "FP64", Some(|v| v), float64),
            Self::Bytes(vec) => strings(reader, vec, limit, body),
        }
    }
}

/// A tensor's `data`: its elements, and the extents of the arrays that they stood in.
pub(crate) struct Array {
    pub(crate) data: Data,
    pub(crate) extents: Vec<usize>,
}

/// Reads an array, flat or nested, of elements of one type. `announced` is how many there should
/// be, if that is known.
pub(crate) fn read_array(
    reader: &mut Reader<'_>,
    body: &Bytes,
    datatype: DataType,
    announced: Option<usize>,
) -> Result<Array, Error> {
    if reader.peek() != Some(b'[') {
        return Err(labelled(reader.unexpected("an array"), "data"));
    }
    let mut elements = Elements::new(datatype);
    elements.reserve(announced.unwrap_or(0), reader.bytes().len() - reader.position());
    let extents = elements.read(reader, body, "data")?;
    Ok(Array { data: elements.finish(), extents })
}

/// Reads a shape: an array of dimensions.
pub(crate) fn read_shape(reader: &mut Reader<'_>) -> Result<Vec<usize>, Error> {
    let mut shape = Vec::with_capacity(4);
    reader.array(|reader, index| {
        if index == MAX_RANK {
            return Err(reader.error(format!("more than {MAX_RANK} dimensions")));
        }
        reader.peek();
        match number::integer::<i64>(reader.bytes(), reader.position()) {
            Ok((extent, end)) if extent >= 0 => {
                reader.set_position(end);
                shape.push(usize::try_from(extent).unwrap_or(usize::MAX));
                Ok(())
            }
            _ => Err(reader.unexpected("a dimension that is 0 or more")),
        }
    })?;
    Ok(shape)
}

/// How many elements were read, or what was wrong after how many.
type Run = Result<usize, (usize, Error)>;

/// Reads numbers. This loop is where the time of a JSON request goes.
#[inline(always)]
fn numbers<T>(
    reader: &mut Reader<'_>,
    values: &mut Vec<T>,
    limit: usize,
    datatype: &'static str,
    non_finite: Option<fn(f64) -> T>,
    parse: impl Fn(&[u8], usize) -> Result<(T, usize), Refusal>,
) -> Run {
    let bytes = reader.bytes();
    let before = values.len();
    reader.peek();
    let mut at = reader.position();
    loop {
        match parse(bytes, at) {
            Ok((value, end)) => {
                values.push(value);
                at = end;
            }
            Err(refusal) => {
                reader.set_position(at);
                let word = non_finite.and_then(|convert| word(reader).map(convert));
                let Some(value) = word else {
                    return Err((values.len() - before, refused(reader, datatype, refusal)));
                };
                values.push(value);
                at = reader.position();
            }
        }
        if values.len() - before == limit {
            break;
        }
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
            at += 1;
        }
        if bytes.get(at) != Some(&b',') {
            break;
        }
        at += 1;
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
            at += 1;
        }
    }
    reader.set_position(at);
    Ok(values.len() - before)
}

/// `NaN`, `Infinity` or `-Infinity`, where they are numbers.
#[cold]
fn word(reader: &mut Reader<'_>) -> Option<f64> {
    if reader.non_finite() == NonFinite::Refused {
        return None;
    }
    let words = [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];
    words.into_iter().find(|(word, _)| reader.word(word)).map(|(_, value)| value)
}

#[cold]
fn refused(reader: &Reader<'_>, datatype: &str, refusal: Refusal) -> Error {
    let rest = &reader.bytes()[reader.position().min(reader.bytes().len())..];
    match refusal {
        Refusal::Range => reader.unexpected(&format!("a number in the range of {datatype}")),
        Refusal::Fraction => reader.unexpected(&format!("an integer for {datatype}")),
        Refusal::Syntax => {
            let mut error = reader.unexpected(datatype);
            if ["NaN", "Infinity", "-Infinity"].iter().any(|w| rest.starts_with(w.as_bytes())) {
                error.message.push_str(", which is not JSON; send it as binary data");
            }
            error
        }
    }
}

/// `true` or `false`, or 1 or 0, which some clients send.
fn boolean(bytes: &[u8], at: usize) -> Result<(u8, usize), Refusal> {
    let rest = &bytes[at.min(bytes.len())..];
    if rest.starts_with(b"true") {
        return Ok((1, at + 4));
    }
    if rest.starts_with(b"false") {
        return Ok((0, at + 5));
    }
    match number::integer(bytes, at)? {
        (value @ 0..=1u8, end) => Ok((value, end)),
        _ => Err(Refusal::Range),
    }
}

/// Reads strings, and where `NaN` is a number, which is to say in TensorFlow Serving's protocol,
/// base64 objects too.
fn strings(reader: &mut Reader<'_>, values: &mut Vec<Bytes>, limit: usize, body: &Bytes) -> Run {
    let before = values.len();
    loop {
        let value = match (reader.peek(), reader.non_finite()) {
            (Some(b'"'), _) => reader.text().map(|text| borrowed(text, body)),
            (Some(b'{'), NonFinite::Allowed) => base64_object(reader),
            _ => Err(reader.unexpected("BYTES (a string)")),
        };
        match value {
            Ok(value) => values.push(value),
            Err(error) => return Err((values.len() - before, error)),
        }
        if values.len() - before == limit || !reader.take(b',') {
            return Ok(values.len() - before);
        }
    }
}

fn borrowed(text: Text, body: &Bytes) -> Bytes {
    match text {
        Text::Plain(range) => body.slice(range),
        Text::Escaped(text) => text.into(),
    }
}

/// `{"b64": "…"}`.
fn base64_object(reader: &mut Reader<'_>) -> Result<Bytes, Error> {
    let start = reader.position();
    let mut decoded = None;
    reader.object(|reader, key| {
        if key != "b64" {
            return Err(reader.error(format!("expected the key \"b64\", got {key:?}")));
        }
        let text = reader.string()?;
        let engine = base64::engine::general_purpose::STANDARD;
        match engine.decode(&*text) {
            Ok(bytes) => decoded = Some(Bytes::from(bytes)),
            Err(error) => return Err(reader.error(format!("not base64: {error}"))),
        }
        Ok(())
    })?;
    let missing = "expected {\"b64\": string}, got an object without \"b64\"";
    decoded.ok_or_else(|| Error { message: missing.into(), offset: start })
}

fn labelled(mut error: Error, label: &str) -> Error {
    error.message = format!("{label}: {}", error.message);
    error
}

/// The extents of nested arrays, which must be the same everywhere.
pub(crate) struct Extents {
    label: &'static str,
    seen: [Option<usize>; MAX_RANK],
    /// How deep the elements are; known once there is one.
    rank: Option<usize>,
    /// The index at each level of what is being read.
    path: [usize; MAX_RANK],
}

impl Extents {
    fn new(label: &'static str) -> Self {
        Self { label, seen: [None; MAX_RANK], rank: None, path: [0; MAX_RANK] }
    }

    /// Reads the rest of an array whose bracket has been taken.
    fn level(
        &mut self,
        reader: &mut Reader<'_>,
        depth: usize,
        run: &mut impl FnMut(&mut Reader<'_>) -> Run,
    ) -> Result<(), Error> {
        if depth >= self.rank.unwrap_or(MAX_RANK) {
            return Err(match self.rank {
                Some(_) => {
                    labelled(reader.error("nested deeper than its neighbours"), &self.place(depth))
                }
                None => reader.error(format!("more than {MAX_RANK} dimensions")),
            });
        }
        let mut count = 0;
        match reader.peek() {
            Some(b']') => {}
            Some(b'[') => loop {
                self.path[depth] = count;
                if !reader.take(b'[') {
                    reader.peek();
                    return Err(self.ragged(reader, depth + 1, "an array like its neighbours"));
                }
                self.level(reader, depth + 1, run)?;
                count += 1;
                if !reader.take(b',') {
                    break;
                }
            },
            _ => {
                let deeper = self.seen[depth + 1..].iter().flatten().next().is_some();
                if deeper || self.rank.is_some_and(|rank| rank != depth + 1) {
                    return Err(self.ragged(reader, depth, "an array like its neighbours"));
                }
                self.rank = Some(depth + 1);
                count = run(reader).map_err(|(index, error)| {
                    self.path[depth] = index;
                    labelled(error, &self.place(depth + 1))
                })?;
            }
        }
        if !reader.take(b']') {
            let error = reader.unexpected("a comma or the end of the array");
            return Err(labelled(error, &self.place(depth)));
        }
        match self.seen[depth] {
            Some(extent) if extent != count => {
                let place = self.place(depth);
                Err(reader.error(format!(
                    "{place} has {count} elements, but its neighbours have {extent}"
                )))
            }
            _ => {
                self.seen[depth] = Some(count);
                Ok(())
            }
        }
    }

    fn ragged(&self, reader: &Reader<'_>, depth: usize, expected: &str) -> Error {
        labelled(reader.unexpected(expected), &self.place(depth))
    }

    /// Such as `data[3][1]`.
    fn place(&self, depth: usize) -> String {
        let mut place = self.label.to_owned();
        for index in &self.path[..depth.min(MAX_RANK)] {
            place.push_str(&format!("[{index}]"));
        }
        place
    }

    fn finish(self) -> Vec<usize> {
        self.seen.into_iter().map_while(|extent| extent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(datatype: DataType, text: &str, non_finite: NonFinite) -> Result<Array, Error> {
        let body = Bytes::copy_from_slice(text.as_bytes());
        let mut reader = Reader::new(&body, non_finite);
        let array = read_array(&mut reader, &body, datatype, None)?;
        reader.end()?;
        Ok(array)
    }

    fn refusal(datatype: DataType, text: &str) -> String {
        match read(datatype, text, NonFinite::Refused) {
            Ok(array) => panic!("{text} was read as {:?}", array.data),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn flat_and_nested_arrays_hold_the_same_elements() {
        let flat = read(DataType::Fp32, "[1, -2.5,3e0 , 4]", NonFinite::Refused).unwrap();
        let nested = read(DataType::Fp32, " [[1,-2.5],\n[3,4]] ", NonFinite::Refused).unwrap();
        assert_eq!(flat.data, Data::from(vec![1f32, -2.5, 3.0, 4.0]));
        assert_eq!(flat.data, nested.data);
        assert_eq!((flat.extents, nested.extents), (vec![4], vec![2, 2]));
        let empty = read(DataType::Bytes, "[[],[]]", NonFinite::Refused).unwrap();
        assert_eq!((empty.data.len(), empty.extents), (0, vec![2, 0]));
        let bools = read(DataType::Bool, "[true,false,1,0]", NonFinite::Refused).unwrap();
        assert_eq!(bools.data, Data::from(vec![true, false, true, false]));
    }

    #[test]
    fn strings_are_borrowed_from_the_body_unless_they_have_escapes() {
        let body = Bytes::from_static(br#"["plain", "line\nbreak"]"#);
        let mut reader = Reader::new(&body, NonFinite::Refused);
        let array = read_array(&mut reader, &body, DataType::Bytes, Some(2)).unwrap();
        let Data::Bytes(strings) = array.data else { panic!() };
        assert_eq!(strings[0].as_ptr(), body[2..].as_ptr());
        assert_eq!(strings[1], "line\nbreak");
    }

    #[test]
    fn refusals_name_the_place_and_what_was_expected() {
        for (datatype, text, message) in [
            (DataType::Fp32, "[1, \"a\"]", "data[1]: expected FP32, got the string \"a\""),
            (
                DataType::Fp32,
                "[[1,2],[3,1e39]]",
                "data[1][1]: expected a number in the range of FP32, got the number 1e39",
            ),
            (
                DataType::Int64,
                "[1.5]",
                "data[0]: expected an integer for INT64, got the number 1.5",
            ),
            (
                DataType::Uint8,
                "[0, 256]",
                "data[1]: expected a number in the range of UINT8, got the number 256",
            ),
            (DataType::Fp16, "[70000]", "range of FP16"),
            (DataType::Fp32, "[NaN]", "data[0]: expected FP32, got NaN, which is not JSON"),
            (DataType::Fp32, "[null]", "data[0]: expected FP32, got null"),
            (DataType::Fp32, "[[1,2],[3]]", "data[1] has 1 elements, but its neighbours have 2"),
            (
                DataType::Fp32,
                "[[1,2],3]",
                "data[1]: expected an array like its neighbours, got the number 3",
            ),
            (DataType::Fp32, "[1,[2]]", "data[1]: expected FP32, got an array"),
            (DataType::Fp32, "[[1],[[2]]]", "data[1][0]: nested deeper than its neighbours"),
            (DataType::Fp32, "[[],[1]]", "data[1] has 1 elements, but its neighbours have 0"),
            (DataType::Fp32, "[[[]],[1]]", "data[1]: expected an array like its neighbours"),
            (DataType::Fp32, "[1,]", "data[1]: expected FP32, got ']'"),
            (DataType::Fp32, "[1", "data: expected a comma or the end of the array, got the end"),
            (DataType::Fp32, "1", "data: expected an array, got the number 1"),
            (DataType::Bytes, "[1]", "data[0]: expected BYTES (a string), got the number 1"),
            (DataType::Bytes, "[{\"b64\":\"\"}]", "expected BYTES (a string), got an object"),
            (DataType::Bool, "[2]", "BOOL"),
        ] {
            let error = refusal(datatype, text);
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(refusal(DataType::Fp32, &"[".repeat(100_000)).contains("more than 16 dimensions"));
    }

    #[test]
    fn where_they_are_allowed_nan_and_base64_are_read() {
        let array = read(DataType::Fp32, "[NaN, -Infinity,Infinity]", NonFinite::Allowed).unwrap();
        let Data::Fp32(values) = array.data else { panic!() };
        assert!(values[0].is_nan() && values[1] == f32::NEG_INFINITY && values[2] == f32::INFINITY);
        let array =
            read(DataType::Bytes, "[{\"b64\": \"aGk=\"}, \"b\"]", NonFinite::Allowed).unwrap();
        assert_eq!(array.data, Data::from(vec!["hi".to_owned(), "b".to_owned()]));
        assert!(read(DataType::Bytes, "[{\"b64\": \"a\"}]", NonFinite::Allowed).is_err());
        assert!(read(DataType::Bytes, "[{}]", NonFinite::Allowed).is_err());
    }

    #[test]
    fn an_announced_billion_reserves_no_more_than_the_text_can_hold() {
        let mut elements = Elements::new(DataType::Fp64);
        elements.reserve(1_000_000_000_000, 100);
        each!(&elements, vec => assert!(vec.capacity() < 100));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in r#"[\[\]{}",:0-9eE+\-. truefalsNI\\]{0,40}"#, index in 0usize..14) {
            let _ = read(DataType::ALL[index], &text, NonFinite::Refused);
            let _ = read(DataType::ALL[index], &text, NonFinite::Allowed);
        }

        #[test]
        fn reads_what_serde_json_writes(values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 0..20)) {
            let text = serde_json::to_string(&values).unwrap();
            let array = read(DataType::Fp64, &text, NonFinite::Refused).unwrap();
            prop_assert_eq!(array.data, Data::from(values));
        }
    }
}

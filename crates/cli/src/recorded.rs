//! Recorded requests in a file: one JSON object a line, with the `request` and perhaps the
//! `response`, both as the Open Inference Protocol has them in JSON.

use std::io::Read;
use std::path::Path;

use ::registry::{Draft, Source};
use model::{Package, Signature, Tensor};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serving::{MOST_RECORDED, Opened};

use crate::{Failure, registry};

/// The name of the file that is kept with a version, or lies beside a model's own.
pub const NAME: &str = "warmup.jsonl";

/// The most bytes that a version's own may have.
const LARGEST: u64 = 16 << 20;

/// A request without what came of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    request: Value,
    #[serde(default, rename = "response")]
    _response: IgnoredAny,
}

/// The objects of a file that are not empty lines, with the numbers of their lines, from 1.
pub fn lines<T: DeserializeOwned>(
    text: &str,
) -> impl Iterator<Item = Result<(usize, T), String>> + '_ {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(place, line)| match serde_json::from_str(line) {
        Ok(one) => Ok((place + 1, one)),
        Err(error) => Err(format!(
            "line {}: {error}; expected {{\"request\": …, \"response\": …}}, as the Open Inference \
             Protocol has them",
            place + 1
        )),
    })
}

/// The number of each request's line and its inputs by name, or what is wrong with it.
fn requests(
    text: &str,
) -> impl Iterator<Item = Result<(usize, Vec<(String, Tensor)>), String>> + '_ {
    lines::<Asked>(text).map(|asked| {
        let (line, asked) = asked?;
        let body = asked.request.to_string().into();
        let inputs = api::read_inputs(&body).map_err(|error| format!("line {line}: {error}"))?;
        Ok((line, inputs))
    })
}

/// Refuses a file that a model cannot be warmed with: one that is empty or too large, or has a
/// request that does not fit the signature.
fn check(bytes: &[u8], signature: &Signature) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}"))?;
    if text.len() as u64 > LARGEST {
        return Err(format!("has {} bytes, of which {LARGEST} are the limit", text.len()));
    }
    let mut count = 0;
    for request in requests(text) {
        let (line, inputs) = request?;
        serving::check(signature, inputs).map_err(|error| format!("line {line}: {error}"))?;
        count += 1;
    }
    match count {
        0 => Err("there is no recorded request in it".to_owned()),
        _ if count > MOST_RECORDED => Err(format!(
            "has {count} requests, of which a version is warmed with {MOST_RECORDED} at most; \
             take the first: head -n {MOST_RECORDED}"
        )),
        _ => Ok(()),
    }
}

/// Adds the recorded requests of a file to a version that is to be published, if they fit it.
pub fn attach(draft: &mut Draft, path: &Path) -> Result<(), Failure> {
    let failed = |what: String| Failure::usage(format!("{}: {what}", path.display()));
    let bytes = read_bounded(path).map_err(|error| failed(error.to_string()))?;
    check(&bytes, &draft.manifest.signature).map_err(failed)?;
    registry::attach(draft, NAME, Source::Bytes(bytes.into()))
}

/// A package with the recorded requests of a file, if there is one. What of it cannot be read is
/// told in the log: a model that runs is served without it.
pub fn with(package: Package, file: &Path, model: &str) -> Opened {
    let mut opened = Opened::from(package);
    let bytes = match read_bounded(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return opened,
        Err(error) => {
            tracing::warn!(model, "{} is not used: {error}", file.display());
            return opened;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut unreadable = (0, None);
    for request in requests(&text).take(MOST_RECORDED) {
        match request {
            Ok((_, inputs)) => opened.recorded.push(inputs),
            Err(error) => {
                unreadable.0 += 1;
                unreadable.1.get_or_insert(error);
            }
        }
    }
    if let (count, Some(first)) = unreadable {
        tracing::warn!(model, "{}: {count} requests cannot be read: {first}", file.display());
    }
    opened
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(std::io::Error::other(format!("it has more than {LARGEST} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        testkit::fake::package().manifest.signature.clone()
    }

    fn row(data: &str) -> String {
        format!(
            r#"{{"request": {{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": {data}}}]}}}}"#
        )
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused_with_its_line() {
        let check = |text: &str| check(text.as_bytes(), &signature());
        assert_eq!(check(&format!("{}\n\n{}\n", row("[1]"), row("[[2.5]]"))), Ok(()));
        let answered = row("[1]").replacen('{', r#"{"response": {"outputs": []}, "#, 1);
        assert_eq!(check(&answered), Ok(()));
        for (text, expected) in [
            (String::new(), "no recorded request"),
            (format!("{}\n\n{}", row("[1]"), row("[\"a\"]")), "line 3: input \"x\""),
            (format!("\n{}", row("[1]").replace("\"x\"", "\"z\"")), "line 2: unknown input \"z\""),
            (row("[1]").replace("FP32", "BYTES"), "line 1: input \"x\""),
            ("{}".to_owned(), "line 1: missing field `request`"),
            (r#"{"request": {}}"#.to_owned(), "line 1: expected the key \"inputs\""),
            (vec![row("[1]"); MOST_RECORDED + 1].join("\n"), "take the first"),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(super::check(b"\xff", &signature()).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn a_file_beside_a_model_that_cannot_be_read_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NAME);
        let opened = || with(testkit::fake::package(), &file, "m").recorded.len();
        assert_eq!(opened(), 0);
        std::fs::write(&file, format!("{}\n{{\n{}\n", row("[1]"), row("[2]"))).unwrap();
        assert_eq!(opened(), 2);
        std::fs::write(&file, " ".repeat(LARGEST as usize + 1)).unwrap();
        assert_eq!(opened(), 0);
    }
}

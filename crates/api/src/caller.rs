//! What a caller says of itself beside the request: in HTTP's headers and gRPC's metadata alike.

use hyper::header::{HeaderMap, HeaderName};
use serving::Error;

use crate::refusals::invalid;

/// Requests with the same key get the same version for as long as the shares stay what they are.
pub(crate) const KEY: HeaderName = HeaderName::from_static("modelyard-key");
/// The version that is to answer, whatever its share. Answers name theirs under the same name.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("modelyard-version");

/// The longest value, in bytes.
pub(crate) const LONGEST: usize = 256;

/// What one call's headers say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// The caller's key, if it has one.
    pub(crate) key: Option<String>,
    version: Option<String>,
}

impl Caller {
    /// Reads the headers of a call.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self { key: value(headers, &KEY)?, version: value(headers, &VERSION)? })
    }

    /// The version that is wanted: the one that the request itself names, or the headers'.
    pub(crate) fn version(&self, named: Option<&str>) -> Result<Option<String>, Error> {
        match (named, &self.version) {
            (Some(named), Some(version)) if named != version => Err(invalid(format!(
                "{VERSION}: the request names version \"{}\", but this says \"{version}\"; \
                 leave one of them away",
                named.chars().take(100).collect::<String>()
            ))),
            (Some(named), _) => Ok(Some(named.to_owned())),
            (None, version) => Ok(version.clone()),
        }
    }
}

fn value(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |got: String| {
        Err(invalid(format!(
            "{name}: expected 1 to {LONGEST} printable ASCII characters, got {got}"
        )))
    };
    if values.any(|other| other != value) {
        return refuse("several values".into());
    }
    match value.to_str() {
        Ok("") => refuse("none".into()),
        Ok(text) if text.len() > LONGEST => refuse(text.len().to_string()),
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => refuse("others".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(name: HeaderName, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn check_refused(headers: &HeaderMap, expected: &str) {
        let error = Caller::read(headers).unwrap_err();
        assert_eq!(error.code(), model::ErrorCode::InvalidArgument);
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    #[test]
    fn a_key_is_read_as_it_was_sent() {
        let caller = Caller::read(&headers(KEY, &[b"user 7~"])).unwrap();
        assert_eq!(caller.key.as_deref(), Some("user 7~"));
        assert_eq!(caller.version(None).unwrap(), None);
        assert!(Caller::read(&headers(KEY, &[&[b'k'; LONGEST]])).unwrap().key.is_some());
        assert!(Caller::read(&headers(KEY, &[b"twice", b"twice"])).unwrap().key.is_some());
    }

    #[test]
    fn what_no_key_or_version_can_be_is_refused() {
        for name in [KEY, VERSION] {
            check_refused(&headers(name.clone(), &["schlüssel".as_bytes()]), "got others");
            check_refused(&headers(name.clone(), &[&[b'k'; LONGEST + 1]]), "got 257");
            check_refused(&headers(name.clone(), &[b""]), "got none");
            check_refused(&headers(name, &[b"one", b"another"]), "got several values");
        }
    }

    #[test]
    fn a_version_named_twice_has_to_be_the_same() {
        let caller = Caller::read(&headers(VERSION, &[b"4"])).unwrap();
        assert_eq!(caller.version(None).unwrap().as_deref(), Some("4"));
        assert_eq!(caller.version(Some("4")).unwrap().as_deref(), Some("4"));
        let error = caller.version(Some("3")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "modelyard-version: the request names version \"3\", but this says \"4\"; \
             leave one of them away"
        );
    }
}

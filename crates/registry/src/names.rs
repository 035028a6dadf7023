//! The names that people give, and references such as `fraud:4` and `fraud@champion`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// One version of a model, as people write it: `fraud:4`, `fraud@champion`, or `fraud` for its
/// champion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The model's name.
    pub model: String,
    /// Which of its versions.
    pub version: Selector,
}

/// Which version of a model is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The one with this number.
    Number(u64),
    /// The one that an alias names now.
    Alias(String),
}

/// The alias that carries the traffic of a model for which nothing else is said.
pub const CHAMPION: &str = "champion";

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "expected MODEL:NUMBER, MODEL@ALIAS or MODEL";
        let (model, version) = if let Some((model, number)) = text.split_once(':') {
            let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
                Error::invalid(format!("\"{}\": {expected}", text.escape_default()))
            })?;
            (model, Selector::Number(number))
        } else if let Some((model, alias)) = text.split_once('@') {
            check_alias(alias)?;
            (model, Selector::Alias(alias.to_owned()))
        } else {
            (text, Selector::Alias(CHAMPION.to_owned()))
        };
        check_model(model)?;
        Ok(Self { model: model.to_owned(), version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Selector::Number(number) => write!(f, "{}:{number}", self.model),
            Selector::Alias(alias) => write!(f, "{}@{alias}", self.model),
        }
    }
}

/// Whether a name can be a model's: 1 to 255 letters, digits and `. _ - +`, not starting with a
/// dot. The error says what is wrong.
pub fn check_model(name: &str) -> Result<()> {
    check("model", name)
}

/// Whether a name can be an alias: as a model's, and not a number.
pub fn check_alias(name: &str) -> Result<()> {
    check("alias", name)?;
    if name.chars().all(|c| c.is_ascii_digit()) {
        return Err(Error::invalid(format!(
            "the alias \"{name}\" is a number, which only versions have; give it a name"
        )));
    }
    Ok(())
}

/// Whether a text can be a request's key: 1 to 256 visible ASCII characters, as in a header.
pub fn check_key(key: &str) -> Result<()> {
    if (1..=256).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let shown: String = key.chars().take(80).collect();
    Err(Error::invalid(format!(
        "the request key \"{}\" is not 1 to 256 visible ASCII characters",
        shown.escape_default()
    )))
}

/// Whether a name can be that of a file in a version: a relative path without `..`, each part a
/// name.
pub fn check_file(path: &str) -> Result<()> {
    path.split('/').try_for_each(|part| check("file", part))
}

fn check(what: &str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > 255 {
        "is longer than 255 bytes"
    } else if name.starts_with('.') {
        "starts with a dot"
    } else if !name.chars().all(allowed) {
        "has characters other than letters, digits and . _ - +"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(80).collect();
    Err(Error::invalid(format!("the {what} name \"{}\" {problem}", shown.escape_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_they_are_written() {
        for text in ["fraud:4", "fraud@champion", "a.b-c_d+e:1"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        assert_eq!("fraud".parse::<Reference>().unwrap().to_string(), "fraud@champion");
    }

    #[test]
    fn other_references_are_refused() {
        for text in ["", ":4", "fraud:", "fraud:0", "fraud:x", "fraud:4:5", "fraud@", "fraud@7"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        for text in ["../x:1", "a/b:1", ".x:1", "a\u{0}b", "fraud@a b", "fraud@a@b", "fraud:-1"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!("x".repeat(256).parse::<Reference>().is_err());
    }

    #[test]
    fn files_stay_inside_their_folder() {
        for name in ["model.onnx", "assets/words.txt"] {
            check_file(name).unwrap();
        }
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a\\b", "."] {
            assert!(check_file(name).is_err(), "{name}");
        }
    }
}

//! What MLflow's searches are asked with: `name = 'fraud' AND tags.team LIKE 'r%'`, and in which
//! order answers come. Read by us: it is not SQL, though it looks like it.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

/// The most clauses of a filter.
const MAX_CLAUSES: usize = 100;

/// Conditions that all must hold.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Filter(Vec<Clause>);

#[derive(Debug, PartialEq)]
struct Clause {
    subject: Subject,
    comparison: Comparison,
    value: Value,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Subject {
    Attribute(String),
    Tag(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Is,
    IsNot,
    Like,
    ILike,
    In,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

/// The value of what is compared, in one candidate.
pub(crate) enum Found<'a> {
    Text(&'a str),
    Number(i64),
    Nothing,
}

impl Filter {
    /// Reads a filter; `attributes` are those that can be asked for.
    pub(crate) fn parse(text: &str, attributes: &[&str]) -> Result<Self, String> {
        let mut reader = Reader { rest: text.chars().peekable() };
        let mut clauses = Vec::new();
        reader.spaces();
        if reader.rest.peek().is_none() {
            return Ok(Self::default());
        }
        loop {
            clauses.push(reader.clause(attributes)?);
            if clauses.len() > MAX_CLAUSES {
                return Err(format!("more than {MAX_CLAUSES} conditions"));
            }
            reader.spaces();
            if reader.rest.peek().is_none() {
                return Ok(Self(clauses));
            }
            let word = reader.word();
            if !word.eq_ignore_ascii_case("AND") {
                return Err(format!("expected AND or the end, got {:?}", reader.shown(&word)));
            }
        }
    }

    /// The value that an attribute must have, if the filter says so.
    pub(crate) fn exactly(&self, attribute: &str) -> Option<&str> {
        self.0.iter().find_map(|clause| match (&clause.subject, clause.comparison, &clause.value) {
            (Subject::Attribute(name), Comparison::Is, Value::Text(text)) if name == attribute => {
                Some(&**text)
            }
            _ => None,
        })
    }

    /// Whether all conditions hold for what is found.
    pub(crate) fn holds<'a>(&self, found: impl Fn(&Subject) -> Found<'a>) -> bool {
        self.0.iter().all(|clause| clause.holds(&found(&clause.subject)))
    }
}

impl Clause {
    fn holds(&self, found: &Found<'_>) -> bool {
        use Comparison::{AtLeast, AtMost, ILike, In, Is, IsNot, Less, Like, More};
        match (found, &self.value) {
            // What is no prompt says nothing of it: MLflow's clients ask for all that are none.
            (Found::Nothing, Value::Text(text)) => {
                let is_prompt =
                    matches!(&self.subject, Subject::Tag(key) if key == "mlflow.prompt.is_prompt");
                is_prompt && matches!((self.comparison, &**text), (IsNot, "true") | (Is, "false"))
            }
            (Found::Text(text), Value::Text(wanted)) => match self.comparison {
                Is => text == wanted,
                IsNot => text != wanted,
                Like => like(text, wanted),
                ILike => like(&text.to_lowercase(), &wanted.to_lowercase()),
                _ => false,
            },
            (Found::Text(text), Value::List(wanted)) => {
                self.comparison == In && wanted.iter().any(|one| one == text)
            }
            (Found::Number(number), Value::Number(wanted)) => {
                let order = number.cmp(wanted);
                match self.comparison {
                    Is => order == Ordering::Equal,
                    IsNot => order != Ordering::Equal,
                    Less => order == Ordering::Less,
                    AtMost => order != Ordering::Greater,
                    More => order == Ordering::Greater,
                    AtLeast => order != Ordering::Less,
                    Like | ILike | In => false,
                }
            }
            _ => false,
        }
    }
}

/// SQL's LIKE: `%` is any text, `_` any character. Takes no longer than both are long, multiplied.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    // Where the last % was, and how much of the text it has swallowed.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                back = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '_' || *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match &mut back {
                Some((percent, swallowed)) => {
                    *swallowed += 1;
                    (t, p) = (*swallowed, *percent + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn spaces(&mut self) {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn clause(&mut self, attributes: &[&str]) -> Result<Clause, String> {
        let subject = self.subject(attributes)?;
        let comparison = self.comparison()?;
        let value = self.value()?;
        use Comparison::{ILike, In, Is, IsNot, Like};
        let fits = match (&value, comparison) {
            (Value::List(_), comparison) => comparison == In,
            (Value::Text(_), comparison) => matches!(comparison, Is | IsNot | Like | ILike),
            (Value::Number(_), comparison) => !matches!(comparison, Like | ILike | In),
        };
        let is_number = matches!(&subject, Subject::Attribute(name) if is_number(name));
        if !fits || is_number != matches!(value, Value::Number(_)) {
            return Err(format!("{subject:?} cannot be compared with {value:?} in this way"));
        }
        Ok(Clause { subject, comparison, value })
    }

    fn subject(&mut self, attributes: &[&str]) -> Result<Subject, String> {
        self.spaces();
        let first = self.name()?;
        if self.rest.next_if_eq(&'.').is_none() {
            return attribute(first, attributes);
        }
        let mut second = self.name()?;
        // Tags have dots in their names, and nobody quotes them.
        while self.rest.next_if_eq(&'.').is_some() {
            second = format!("{second}.{}", self.name()?);
        }
        match &*first {
            "tag" | "tags" => Ok(Subject::Tag(second)),
            "attribute" | "attributes" => attribute(second, attributes),
            _ => {
                Err(format!("{:?}: expected tags or attribute before the dot", self.shown(&first)))
            }
        }
    }

    /// A name, in quotes or not.
    fn name(&mut self) -> Result<String, String> {
        if let Some(quote) = self.rest.next_if(|c| matches!(c, '`' | '"')) {
            return self.quoted(quote);
        }
        match self.word() {
            word if word.is_empty() => Err("expected a name such as name or tags.team".to_owned()),
            word => Ok(word),
        }
    }

    fn word(&mut self) -> String {
        let in_word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(in_word) {
            word.push(c);
        }
        word
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.rest.next() {
                None => return Err(format!("a text that begins with {quote} does not end")),
                // Twice stands for itself, as in SQL.
                Some(c) if c == quote => match self.rest.next_if_eq(&quote) {
                    Some(_) => text.push(quote),
                    None => return Ok(text),
                },
                Some(c) => text.push(c),
            }
        }
    }

    fn comparison(&mut self) -> Result<Comparison, String> {
        self.spaces();
        let mut sign = String::new();
        while let Some(c) = self.rest.next_if(|c| matches!(c, '=' | '!' | '<' | '>')) {
            sign.push(c);
        }
        if sign.is_empty() {
            sign = self.word().to_uppercase();
        }
        Ok(match &*sign {
            "=" | "==" => Comparison::Is,
            "!=" | "<>" => Comparison::IsNot,
            "<" => Comparison::Less,
            "<=" => Comparison::AtMost,
            ">" => Comparison::More,
            ">=" => Comparison::AtLeast,
            "LIKE" => Comparison::Like,
            "ILIKE" => Comparison::ILike,
            "IN" => Comparison::In,
            other => {
                let known = "=, !=, <, <=, >, >=, LIKE, ILIKE and IN";
                return Err(format!("{:?}: expected one of {known}", self.shown(other)));
            }
        })
    }

    fn value(&mut self) -> Result<Value, String> {
        self.spaces();
        if self.rest.next_if_eq(&'(').is_none() {
            return self.single();
        }
        let mut list = Vec::new();
        loop {
            self.spaces();
            match self.single()? {
                Value::Text(text) => list.push(text),
                other => return Err(format!("{other:?}: expected a text in quotes")),
            }
            self.spaces();
            match self.rest.next() {
                Some(',') => {}
                Some(')') => return Ok(Value::List(list)),
                _ => return Err("a list does not end; expected , or )".to_owned()),
            }
        }
    }

    fn single(&mut self) -> Result<Value, String> {
        if let Some(quote) = self.rest.next_if(|c| matches!(c, '\'' | '"')) {
            return self.quoted(quote).map(Value::Text);
        }
        let word = self.word();
        let number = word.parse().map(Value::Number);
        number
            .map_err(|_| format!("{:?}: expected a text in quotes or a number", self.shown(&word)))
    }

    fn shown(&self, text: &str) -> String {
        text.chars().take(40).collect()
    }
}

fn is_number(attribute: &str) -> bool {
    matches!(attribute, "version_number" | "creation_timestamp" | "last_updated_timestamp")
}

fn attribute(name: String, attributes: &[&str]) -> Result<Subject, String> {
    if attributes.contains(&&*name) {
        return Ok(Subject::Attribute(name));
    }
    let shown: String = name.chars().take(40).collect();
    Err(format!("{shown:?}: expected one of {}, or tags.KEY", attributes.join(", ")))
}

/// By what an answer is ordered: attributes, and whether each ascends.
pub(crate) fn order(texts: &[String], attributes: &[&str]) -> Result<Vec<(String, bool)>, String> {
    let one = |text: &String| {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let name = name.strip_prefix("attribute.").unwrap_or(name).trim_matches('`').to_owned();
        let ascends = match words.next().map(str::to_uppercase).as_deref() {
            None | Some("ASC") => true,
            Some("DESC") => false,
            Some(_) => return Err(format!("order_by {name:?}: expected ASC or DESC after it")),
        };
        if !attributes.contains(&&*name) || words.next().is_some() {
            let shown: String = text.chars().take(40).collect();
            return Err(format!("order_by {shown:?}: expected one of {}", attributes.join(", ")));
        }
        Ok((name, ascends))
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["name", "version_number", "run_id"];

    fn holds(filter: &str) -> bool {
        let filter =
            Filter::parse(filter, &KNOWN).unwrap_or_else(|error| panic!("{filter}: {error}"));
        filter.holds(|subject| match subject {
            Subject::Attribute(name) if name == "name" => Found::Text("fraud"),
            Subject::Attribute(name) if name == "version_number" => Found::Number(4),
            Subject::Tag(key) if key == "team" => Found::Text("Risk's"),
            Subject::Tag(key) if key == "a.b c" => Found::Text("x"),
            _ => Found::Nothing,
        })
    }

    #[test]
    fn filters_hold_as_mlflow_says() {
        for filter in [
            "",
            "  ",
            "name = 'fraud'",
            "name='fraud' and version_number >= 4",
            "attribute.name != \"other\" AND version_number < 5 AND version_number != 3",
            "name LIKE 'fr%' AND name ILIKE '_RAU_'",
            "name IN ('a', 'fraud')",
            "tags.team = 'Risk''s'",
            "tag.`a.b c` = 'x'",
            "tags.\"a.b c\" like '%'",
            "tag.`mlflow.prompt.is_prompt` != 'true'",
            "tags.mlflow.prompt.is_prompt = 'false'",
        ] {
            assert!(holds(filter), "{filter}");
        }
        for filter in [
            "name = 'fraud' AND version_number > 4",
            "name LIKE 'fr_d'",
            "name IN ('a')",
            "tags.nothing = 'x'",
            "tags.nothing != 'x'",
            "tag.`mlflow.prompt.is_prompt` = 'true'",
        ] {
            assert!(!holds(filter), "{filter}");
        }
        let filter = Filter::parse("tags.a = 'x' AND name = 'm'", &KNOWN).unwrap();
        assert_eq!((filter.exactly("name"), filter.exactly("run_id")), (Some("m"), None));
    }

    #[test]
    fn other_filters_are_refused_with_what_was_expected() {
        for (filter, says) in [
            ("name", "expected one of =, !="),
            ("name =", "expected a text in quotes or a number"),
            ("name = fraud", "expected a text in quotes"),
            ("name = 'fraud", "does not end"),
            ("name = 'a' OR name = 'b'", "expected AND"),
            ("size = 'a'", "expected one of name, version_number, run_id, or tags.KEY"),
            ("params.x = 'a'", "expected tags or attribute"),
            ("name > 'a'", "cannot be compared"),
            ("version_number = '4'", "cannot be compared"),
            ("name = 4", "cannot be compared"),
            ("version_number LIKE 4", "cannot be compared"),
            ("name IN ('a'", "does not end"),
            ("name IN ()", "expected a text"),
            ("= 'a'", "expected a name"),
            ("name = 'a' AND", "expected a name"),
        ] {
            let error = Filter::parse(filter, &KNOWN).unwrap_err();
            assert!(error.contains(says), "{filter}: {error}");
        }
        let many = vec!["name = 'a'"; 200].join(" AND ");
        assert!(Filter::parse(&many, &KNOWN).is_err());
    }

    #[test]
    fn like_takes_no_long_time() {
        let text = "a".repeat(5000);
        assert!(!like(&text, &format!("{}b", "%a".repeat(100))));
        assert!(like(&text, "%a%"));
        assert!(like("", "%") && !like("", "_") && like("a", "_"));
    }

    #[test]
    fn orders_are_read() {
        let order = |text: &str| super::order(&[text.to_owned()], &KNOWN);
        assert_eq!(order("name").unwrap(), [("name".to_owned(), true)]);
        assert_eq!(order("version_number desc").unwrap(), [("version_number".to_owned(), false)]);
        for wrong in ["", "size", "name up", "name ASC DESC"] {
            assert!(order(wrong).is_err(), "{wrong}");
        }
    }
}

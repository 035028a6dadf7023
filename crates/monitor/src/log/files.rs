//! Where the files of a log are, and which of them are too old or too many. Pure.
//!
//! A log has two tables, each in Hive's layout, which DuckDB, pandas and Spark read as they are:
//!
//! ```text
//! predictions/model=fraud/date=2026-11-24/hour=14/20261124T140310Z-5f3a91c2-000001.parquet
//! labels/model=fraud/date=2026-11-24/hour=15/…
//! _staging/5f3a91c2/…            files that are not finished; readers skip what begins with _
//! ```

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use object_store::path::{Path, PathPart};

/// The folder of files that are not finished.
pub const STAGING: &str = "_staging";

/// A table of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// One row for each row that was predicted.
    Predictions,
    /// What became known afterwards.
    Labels,
}

impl Table {
    /// The name of its folder.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Predictions => "predictions",
            Self::Labels => "labels",
        }
    }
}

/// An hour since the epoch, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour(i64);

impl Hour {
    /// The hour that a time is in. Times that no calendar has are taken for the last or first hour.
    pub fn of(time: Timestamp) -> Self {
        Self(time.as_second().div_euclid(3600))
    }

    /// When it begins.
    pub fn start(self) -> Timestamp {
        Timestamp::from_second(self.0.saturating_mul(3600)).unwrap_or(Timestamp::MAX)
    }

    /// When it is over.
    pub fn end(self) -> Timestamp {
        Self(self.0.saturating_add(1)).start()
    }

    fn parse(date: &str, hour: &str) -> Option<Self> {
        let date: jiff::civil::Date = date.parse().ok()?;
        let hour: i8 = hour.parse().ok().filter(|hour| (0..24).contains(hour))?;
        let time = DateTime::from_parts(date, jiff::civil::Time::new(hour, 0, 0, 0).ok()?);
        Some(Self::of(TimeZone::UTC.to_timestamp(time).ok()?))
    }
}

/// A time as the calendar has it; what is beyond the calendar is at its end.
pub fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(match time < SystemTime::UNIX_EPOCH {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}

/// What a file has rows of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// The table.
    pub table: Table,
    /// The model.
    pub model: String,
    /// The hour.
    pub hour: Hour,
}

impl Partition {
    /// The folder of the table's rows of a model, under the log's own.
    pub fn of_model(root: &Path, table: Table, model: &str) -> Path {
        let root = root.clone().join(table.as_str());
        root.join(PathPart::parse(&format!("model={}", escape(model))).unwrap_or_default())
    }

    /// The place of a file.
    pub fn path(&self, root: &Path, name: &str) -> Path {
        let start = self.hour.start().strftime("date=%Y-%m-%d").to_string();
        let hour = self.hour.start().strftime("hour=%H").to_string();
        Self::of_model(root, self.table, &self.model).join(start).join(hour).join(name)
    }

    /// What a file has rows of, if it is one of a log's.
    pub fn parse(root: &Path, path: &Path) -> Option<Self> {
        let parts: Vec<PathPart<'_>> = path.prefix_match(root)?.collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let [table, model, date, hour, name] = parts[..] else { return None };
        let table = match table {
            "predictions" => Table::Predictions,
            "labels" => Table::Labels,
            _ => return None,
        };
        let hour = Hour::parse(date.strip_prefix("date=")?, hour.strip_prefix("hour=")?)?;
        let model = unescape(model.strip_prefix("model=")?)?;
        name.ends_with(".parquet").then_some(Self { table, model, hour })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = self.hour.start().strftime("%Y-%m-%dT%H");
        write!(f, "{} of {} at {hour}", self.table.as_str(), self.model)
    }
}

/// What stands for a name in a path: everything but letters, digits and a few signs as `%` and two
/// hexadecimal digits, which readers of this layout turn back.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'+' | b'@' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it has rows of.
    pub partition: Partition,
    /// Its place in the object store.
    pub path: Path,
    /// Its bytes.
    pub size: u64,
}

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Files whose hour ended longer ago are removed.
    pub age: Option<Duration>,
    /// The most bytes of all files together: the oldest beyond that are removed.
    pub bytes: Option<u64>,
}

impl Keep {
    /// The files that have to go.
    pub fn expired(&self, mut files: Vec<File>, now: Timestamp) -> Vec<File> {
        files.sort_by(|a, b| (a.partition.hour, &a.path).cmp(&(b.partition.hour, &b.path)));
        let oldest = self.age.and_then(|age| now.checked_sub(age).ok());
        let mut bytes: u64 = files.iter().map(|file| file.size).sum();
        let is_expired = |file: &File| {
            let is_old = oldest.is_some_and(|oldest| file.partition.hour.end() < oldest);
            let is_much = self.bytes.is_some_and(|most| bytes > most);
            if is_old || is_much {
                bytes -= file.size;
            }
            is_old || is_much
        };
        let mut is_expired = is_expired;
        files.retain(|file| is_expired(file));
        files
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_file_is_where_hive_would_look_for_it() {
        let hour = Hour::of(at("2026-11-24T07:59:59.9Z"));
        let partition = Partition { table: Table::Predictions, model: "a =é/%".into(), hour };
        let root = Path::from("logs/one");
        let path = partition.path(&root, "x.parquet");
        assert_eq!(
            path.as_ref(),
            "logs/one/predictions/model=a%20%3D%C3%A9%2F%25/date=2026-11-24/hour=07/x.parquet"
        );
        assert_eq!(Partition::parse(&root, &path), Some(partition));
    }

    #[test]
    fn what_is_not_of_the_log_is_not_taken_for_it() {
        let root = Path::from("log");
        for other in [
            "log/predictions/model=m/date=2026-11-24/hour=24/x.parquet",
            "log/predictions/model=m/date=2026-13-24/hour=01/x.parquet",
            "log/predictions/model=m/date=2026-11-24/hour=01/x.parquet.part",
            "log/other/model=m/date=2026-11-24/hour=01/x.parquet",
            "log/predictions/m/date=2026-11-24/hour=01/x.parquet",
            "log/predictions/model=m/date=2026-11-24/hour=01/deep/x.parquet",
            "elsewhere/predictions/model=m/date=2026-11-24/hour=01/x.parquet",
        ] {
            assert_eq!(Partition::parse(&root, &Path::from(other)), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_have_to() {
        let file = |time: &str, size| {
            let hour = Hour::of(at(time));
            let partition = Partition { table: Table::Labels, model: "m".into(), hour };
            let path = partition.path(&Path::default(), "x.parquet");
            File { partition, path, size }
        };
        let files = vec![
            file("2026-11-24T12:00:00Z", 10),
            file("2026-11-24T10:00:00Z", 20),
            file("2026-11-24T11:00:00Z", 30),
        ];
        let expired = |age: Option<u64>, bytes| {
            let keep = Keep { age: age.map(Duration::from_secs), bytes };
            let gone = keep.expired(files.clone(), at("2026-11-24T12:30:00Z"));
            gone.iter().map(|file| file.size).collect::<Vec<_>>()
        };
        assert_eq!(expired(None, None), Vec::<u64>::new());
        assert_eq!(expired(None, Some(60)), Vec::<u64>::new());
        assert_eq!(expired(None, Some(59)), [20]);
        assert_eq!(expired(None, Some(0)), [20, 30, 10]);
        // The hour of 10 ended at 11:00, an hour and a half ago.
        assert_eq!(expired(Some(5399), None), [20]);
        assert_eq!(expired(Some(5400), None), Vec::<u64>::new());
    }

    proptest! {
        #[test]
        fn any_name_and_time_comes_back(name in "\\PC{1,40}", seconds in -2_000_000_000_000_i64..) {
            let time = Timestamp::from_second(seconds.clamp(-62_000_000_000, 253_000_000_000));
            let hour = Hour::of(time.unwrap());
            let partition = Partition { table: Table::Labels, model: name, hour };
            let root = Path::from("a/b");
            let path = partition.path(&root, "1.parquet");
            // As the store lists it.
            let listed = Path::parse(path.as_ref()).unwrap();
            prop_assert_eq!(Partition::parse(&root, &listed), Some(partition));
        }
    }
}

//! What is known of a version, and how rows become it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::Manifest;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{timestamp, unsigned};
use crate::{Error, Result, Stage};

/// Where a version comes from, as far as whoever pushed it said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lineage {
    /// The version of the same model that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// The digest of the data that it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The commit of the source code that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// What a file is to its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Part of the package: needed to run the model.
    Model,
    /// Beside it: a model card, a profile of the data.
    Attachment,
}

impl FileKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Attachment => "attachment",
        }
    }
}

/// One file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path in the version's folder.
    pub name: String,
    /// What it is to the version.
    pub kind: FileKind,
    /// `sha256:` and the digest of its bytes.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
}

/// A version in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its model.
    pub model: String,
    /// Its number: 1, 2, 3, … within the model, never used twice.
    pub number: u64,
    /// Where it is in its life.
    pub stage: Stage,
    /// The aliases that name it now.
    pub aliases: Vec<String>,
    /// When it was published.
    pub published: Timestamp,
    /// Who published it.
    pub who: String,
    /// The digest of its package.
    pub digest: String,
    /// The size of its package, in bytes.
    pub size: u64,
}

/// Everything that is known of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// What lists show of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// Where it comes from.
    pub lineage: Lineage,
    /// What whoever pushed it wants to be known.
    pub metadata: BTreeMap<String, String>,
    /// What `import` found.
    pub manifest: Manifest,
    /// The file to open; the others lie where it looks for them.
    pub main: String,
    /// Its files, ordered by name; none once it is purged.
    pub files: Vec<File>,
}

// A version is its summary and more.
impl std::ops::Deref for Version {
    type Target = Summary;

    fn deref(&self) -> &Summary {
        &self.summary
    }
}

/// A model in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// How many versions it ever had: the number of the newest.
    pub versions: u64,
    /// What each alias names.
    pub aliases: BTreeMap<String, u64>,
    /// When the newest version was published.
    pub published: Timestamp,
}

/// The part of a version that is kept as JSON: no statement ever asks for it.
#[derive(Serialize, Deserialize)]
pub struct Description {
    pub manifest: Manifest,
    pub main: String,
    #[serde(default)]
    pub lineage: Lineage,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// The columns that make a summary.
pub const SUMMARY: &str = "model, number, stage, published, who, digest, size";

/// A summary from those columns; the aliases are in another table.
pub fn summary(row: &AnyRow) -> Result<Summary> {
    Ok(Summary {
        model: row.try_get("model")?,
        number: unsigned(row.try_get("number")?)?,
        stage: stage(row.try_get("stage")?)?,
        aliases: Vec::new(),
        published: timestamp(row.try_get("published")?)?,
        who: row.try_get("who")?,
        digest: row.try_get("digest")?,
        size: unsigned(row.try_get("size")?)?,
    })
}

/// A file from its row.
pub fn file(row: &AnyRow) -> Result<File> {
    let kind: &str = row.try_get("kind")?;
    Ok(File {
        name: row.try_get("name")?,
        kind: if kind == "model" { FileKind::Model } else { FileKind::Attachment },
        digest: row.try_get("digest")?,
        size: unsigned(row.try_get("size")?)?,
    })
}

/// A stage by its name.
pub fn stage(name: &str) -> Result<Stage> {
    [Stage::Active, Stage::Archived, Stage::Deleted, Stage::Purged]
        .into_iter()
        .find(|stage| stage.as_str() == name)
        .ok_or_else(|| Error::damaged(format!("the database holds an unknown stage \"{name}\"")))
}

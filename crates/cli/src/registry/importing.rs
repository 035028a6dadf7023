//! `modelyard import`: what another tool keeps becomes models of the registry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ::import::foreign::{self, Found, Layout, Survey};
use ::registry::{By, Expected, FileKind, Reference, Registry, Selector, Source};
use serde::Serialize;

use super::place::{Author, Place};
use super::{OrFailure, print_json, push};
use crate::Failure;
use crate::table::Table;

/// Flags of `import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard import mlruns/1/4b0c/artifacts/model --name fraud   an MLflow model with the flavor onnx
  modelyard import exported/fraud                               what mlflow-export-import wrote
  modelyard import models/                                      a Triton repository
  modelyard import /srv/fraud --from tfserving                  numbered folders with model.onnx

How the folder is laid out is found out unless --from says it. Versions get new numbers in the order
that they had; the old ones are kept as imported.version. What is in the registry already is not
added again, so an import that broke off is run again. Versions that cannot be imported are named,
the others are imported, and the exit code is 3.")]
pub struct Import {
    /// The folder
    folder: PathBuf,
    /// How it is laid out: mlflow, mlflow-export, triton or tfserving
    #[arg(long, value_name = "LAYOUT", value_parser = layout)]
    from: Option<Layout>,
    /// The model's name in the registry [default: the name that it has there]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Say what would be imported, and import nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

fn layout(text: &str) -> Result<Layout, String> {
    let all = [Layout::Mlflow, Layout::MlflowExport, Layout::Triton, Layout::TensorflowServing];
    let found = all.into_iter().find(|layout| layout.as_str() == text);
    found.ok_or_else(|| "expected mlflow, mlflow-export, triton or tfserving".to_owned())
}

/// What became of one version.
#[derive(Debug, Serialize)]
struct Outcome {
    model: String,
    /// What it was called.
    from: Option<String>,
    /// The number that it has in the registry.
    number: Option<u64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
}

/// Imports what is there, and prints what became of each version.
pub fn import(args: Import) -> Result<(), Failure> {
    let Survey { layout, models } =
        foreign::survey(&args.folder, args.from).map_err(|e| Failure::coded(e.code(), &e))?;
    let models = named(models, args.name.as_deref())?;
    for (name, found) in &models {
        found.notes.iter().for_each(|note| tracing::warn!(model = name, "{note}"));
    }
    let by = args.author.by();
    let outcomes = args.place.with(async |registry| {
        let task = Task { registry: &registry, layout, by, dry_run: args.dry_run };
        let mut outcomes = Vec::new();
        for (name, found) in &models {
            outcomes.append(&mut task.model(name, found).await?);
        }
        Ok(outcomes)
    })?;
    if args.place.json {
        print_json(&outcomes)?;
    } else {
        print(&outcomes);
    }
    let refused = outcomes.iter().filter(|outcome| outcome.outcome == "refused").count();
    match refused {
        0 => Ok(()),
        1 => Err(Failure::refused("1 version was not imported; above is why")),
        _ => Err(Failure::refused(format!("{refused} versions were not imported; above is why"))),
    }
}

/// The models with the names that they get in the registry.
fn named(models: Vec<Found>, name: Option<&str>) -> Result<Vec<(String, Found)>, Failure> {
    let count = models.len();
    models
        .into_iter()
        .map(|found| {
            let name = match (name, found.name.as_deref()) {
                (Some(_), _) if count > 1 => {
                    return Err(Failure::usage(format!(
                        "--name: there are {count} models; import the folder of one of them"
                    )));
                }
                (Some(name), _) | (None, Some(name)) => name.to_owned(),
                (None, None) => {
                    return Err(Failure::usage("the folder does not say what the model is called")
                        .help("give it a name: --name NAME"));
                }
            };
            ::registry::check_model(&name)
                .map_err(|e| Failure::usage(e).help("give it another name: --name NAME"))?;
            Ok((name, found))
        })
        .collect()
}

struct Task<'a> {
    registry: &'a Registry,
    layout: Layout,
    by: By,
    dry_run: bool,
}

impl Task<'_> {
    async fn model(&self, name: &str, found: &Found) -> Result<Vec<Outcome>, Failure> {
        let mut known = self.known(name).await?;
        let mut outcomes = Vec::new();
        for version in &found.versions {
            let mut outcome = Outcome {
                model: name.to_owned(),
                from: version.number.clone(),
                number: None,
                outcome: "refused",
                why: None,
                aliases: Vec::new(),
            };
            match self.version(name, found, version, &known).await {
                Ok((number, digest, is_new)) => {
                    outcome.number = number;
                    outcome.outcome = match (is_new, self.dry_run) {
                        (true, true) => "would be imported",
                        (true, false) => "imported",
                        (false, _) => "already there",
                    };
                    if let (Some(number), true) = (number, is_new) {
                        known.push(Known { digest, number, from: version.number.clone() });
                    }
                }
                Err(Refused::Version(why)) => outcome.why = Some(why),
                Err(Refused::All(failure)) => return Err(failure),
            }
            outcomes.push(outcome);
        }
        self.aliases(name, found, &mut outcomes).await?;
        Ok(outcomes)
    }

    /// The versions of a model that are in the registry.
    async fn known(&self, name: &str) -> Result<Vec<Known>, Failure> {
        let versions = match self.registry.versions(name).await {
            Err(error) if error.code() == model::ErrorCode::NotFound => return Ok(Vec::new()),
            versions => versions.or_failure()?,
        };
        let mut known = Vec::new();
        for summary in versions {
            let version = Selector::Number(summary.number);
            let reference = Reference { model: name.to_owned(), version };
            let version = self.registry.resolve(&reference).await.or_failure()?;
            let from = version.metadata.get("imported.version").cloned();
            known.push(Known { digest: summary.digest, number: summary.number, from });
        }
        // Oldest first: of several with the same bytes the first is meant.
        known.reverse();
        Ok(known)
    }

    /// Publishes a version unless it is there, and returns its number, its digest and whether it
    /// is new.
    async fn version(
        &self,
        name: &str,
        found: &Found,
        version: &foreign::Version,
        known: &[Known],
    ) -> Result<(Option<u64>, String, bool), Refused> {
        let file = version.file.as_ref().map_err(|e| Refused::Version(e.to_string()))?;
        let package = ::import::open(file).map_err(|e| Refused::Version(e.to_string()))?;
        let digest = package.manifest.digest.clone();
        let same = |known: &&Known| {
            known.digest == digest && (known.from.is_none() || known.from == version.number)
        };
        if let Some(known) = known.iter().find(same) {
            return Ok((Some(known.number), digest, false));
        }
        if self.dry_run {
            return Ok((None, digest, true));
        }
        if let Some(signature) = version.metadata.get("mlflow.signature") {
            for what in foreign::mlflow_disagreements(signature, &package.manifest.signature) {
                tracing::warn!(model = name, version = version.number, "{what}");
            }
        }
        let mut draft = push::draft_of(name, &package, file).map_err(Refused::All)?;
        draft.metadata = self.metadata(version);
        draft.lineage.commit.clone_from(&version.commit);
        let description = version.description.as_ref().or(found.description.as_ref());
        if let Some(text) = description {
            let card = Source::Bytes(format!("# {name}\n\n{text}\n").into());
            draft.files.entry("card.md".into()).or_insert((FileKind::Attachment, card));
        }
        for (name, path) in &version.attachments {
            let source = Source::Path(path.clone());
            draft.files.entry(name.clone()).or_insert((FileKind::Attachment, source));
        }
        let reason = format!("imported from {}", self.layout.as_str());
        let mut by = self.by.clone();
        if by.reason.is_empty() {
            by.reason = reason;
        }
        let published = self.registry.publish(&draft, &by, &push::report).await.or_failure();
        let published = published.map_err(Refused::All)?;
        Ok((Some(published.number), digest, true))
    }

    fn metadata(&self, version: &foreign::Version) -> BTreeMap<String, String> {
        let mut metadata = version.metadata.clone();
        metadata.insert("imported.from".to_owned(), self.layout.as_str().to_owned());
        let number = version.number.clone();
        metadata.extend(number.map(|number| ("imported.version".to_owned(), number)));
        metadata
    }

    /// Sets the aliases that are not there yet. One that is stays as somebody here has set it.
    async fn aliases(
        &self,
        name: &str,
        found: &Found,
        outcomes: &mut [Outcome],
    ) -> Result<(), Failure> {
        let models = if found.aliases.is_empty() {
            Vec::new()
        } else {
            self.registry.models().await.or_failure()?
        };
        let there = models.into_iter().find(|model| model.name == name);
        let there = there.map(|model| model.aliases).unwrap_or_default();
        for (alias, from) in &found.aliases {
            let of_version = |outcome: &&mut Outcome| outcome.from.as_ref() == Some(from);
            let Some(outcome) = outcomes.iter_mut().find(of_version) else { continue };
            let Some(number) = outcome.number else { continue };
            if there.get(alias) == Some(&number) {
                continue;
            }
            if let Some(other) = there.get(alias) {
                tracing::warn!("{name}@{alias} stays {name}:{other}; it was version {from}");
                continue;
            }
            let by = self.by.clone();
            let set = self
                .registry
                .set_alias(name, alias, Some(number), Expected::Nothing, &by)
                .await
                .map(|_| outcome.aliases.push(alias.clone()));
            if let Err(error) = set {
                tracing::warn!("{name}@{alias} is not set: {error}");
            }
        }
        Ok(())
    }
}

/// A version that is in the registry.
struct Known {
    digest: String,
    number: u64,
    /// What it was called where it was imported from.
    from: Option<String>,
}

/// Why a version is not imported, or none.
enum Refused {
    Version(String),
    All(Failure),
}

fn print(outcomes: &[Outcome]) {
    let mut table = Table::new(["model", "was", "is", "", "aliases"]);
    for outcome in outcomes {
        let what = match &outcome.why {
            Some(why) => format!("{}: {why}", outcome.outcome),
            None => outcome.outcome.to_owned(),
        };
        table.row(vec![
            outcome.model.clone(),
            outcome.from.clone().unwrap_or_else(|| "-".to_owned()),
            outcome.number.map_or("-".to_owned(), |number| number.to_string()),
            what,
            outcome.aliases.join(" "),
        ]);
    }
    print!("{}", table.text(0));
}

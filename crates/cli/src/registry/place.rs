//! Which registry is meant, and who asks.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use ::registry::{By, Clock, Location, Registry};

use super::{OrFailure, aws};
use crate::Failure;

/// Where the registry is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Folder, or s3://BUCKET/PREFIX, gs://…, az://… [default: modelyard in the user's data folder]
    #[arg(long, env = "MODELYARD_REGISTRY", value_name = "FOLDER|URL", help_heading = "Registry")]
    registry: Option<String>,
    /// postgres:// URL or SQLite file [default: registry.db in the folder]
    #[arg(
        long,
        env = "MODELYARD_DATABASE",
        value_name = "URL|FILE",
        hide_env_values = true,
        help_heading = "Registry"
    )]
    database: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Who changes something, and why.
#[derive(Debug, clap::Args)]
pub struct Author {
    /// Who makes the change [default: the user's name]
    #[arg(long, env = "MODELYARD_BY", value_name = "NAME", help_heading = "History")]
    by: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", help_heading = "History")]
    reason: Option<String>,
}

impl Author {
    pub fn by(&self) -> By {
        By::new(self.by.clone().unwrap_or_else(who))
            .because(self.reason.clone().unwrap_or_default())
    }
}

/// The user's name.
pub fn who() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    user.unwrap_or_else(|| "unknown".to_owned())
}

impl Place {
    /// Opens the registry and does something with it.
    pub fn with<T, F>(&self, act: impl FnOnce(Registry) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async { act(self.open().await?).await })
    }

    async fn open(&self) -> Result<Registry, Failure> {
        let text = match &self.registry {
            Some(text) => text.clone(),
            None => default_folder()?.to_string_lossy().into_owned(),
        };
        let location = location(&text)?;
        let database = self.database.as_deref();
        Registry::open(&location, database, Clock::system()).await.or_failure()
    }
}

/// The location of a registry, or of something else that is kept so, with the settings of the clouds' own tools.
pub fn location(text: &str) -> Result<Location, Failure> {
    let mut settings = cloud_settings();
    if text.starts_with("s3://") || text.starts_with("s3a://") {
        let of_profile = aws_profile(&settings)?;
        settings.extend(of_profile);
    }
    Location::parse(text, settings).or_failure()
}

/// What the profile of Amazon's tools says that is meant.
fn aws_profile(known: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let read = |variable: &str, name: &str| {
        let named = std::env::var_os(variable).map(PathBuf::from);
        let path = named.unwrap_or_else(|| home.join(".aws").join(name));
        // Most people have none.
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let config = read("AWS_CONFIG_FILE", "config");
    let credentials = read("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    let profile = known.get("AWS_PROFILE").map(String::as_str).filter(|name| !name.is_empty());
    aws::settings(&config, &credentials, profile, known).map_err(Failure::usage)
}

/// The settings that the clouds' own tools take from the environment.
fn cloud_settings() -> BTreeMap<String, String> {
    let of_clouds =
        |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|cloud| name.starts_with(cloud));
    let text = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| of_clouds(name)).collect()
}

fn default_folder() -> Result<PathBuf, Failure> {
    user_folder("XDG_DATA_HOME", ".local/share").ok_or_else(|| {
        Failure::usage("there is no home folder to keep a registry in")
            .help("name one with --registry FOLDER")
    })
}

/// This program's folder among the user's: where the variable says, else at a place in the home
/// folder. `None` where there is no home.
pub fn user_folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = set(variable).map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(set("HOME")?).join(in_home)))?;
    Some(folder.join("modelyard"))
}

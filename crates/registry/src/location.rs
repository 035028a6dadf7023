//! Where the blobs of a registry are: a folder, or a bucket of a cloud.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::{Error, Result, error};

/// A folder, or the URL of a bucket and a prefix in it, with the settings of its cloud.
#[derive(Clone)]
pub struct Location {
    place: Place,
    settings: BTreeMap<String, String>,
}

#[derive(Clone)]
enum Place {
    Folder(PathBuf),
    Bucket(Url),
}

impl Location {
    /// Reads the path of a folder, or `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`,
    /// `az://CONTAINER/PREFIX`.
    ///
    /// The settings are those that the clouds' own tools take from the environment, by the same
    /// names (`AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, …);
    /// without credentials among them the machine's own are asked for. What another cloud, or
    /// nobody, knows is ignored.
    pub fn parse(text: &str, settings: BTreeMap<String, String>) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("the location is empty; name a folder or a URL"));
        }
        let place = if !text.contains("://") {
            Place::Folder(text.into())
        } else {
            let url = Url::parse(text)
                .map_err(|error| Error::invalid(format!("the location \"{text}\": {error}")))?;
            match url.scheme() {
                "file" => Place::Folder(url.to_file_path().map_err(|()| {
                    Error::invalid(format!("{text}: expected file:///PATH of this machine"))
                })?),
                "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" | "adl" => {
                    Place::Bucket(url)
                }
                other => {
                    return Err(Error::invalid(format!(
                        "a URL of \"{other}\" is no place to keep things; expected a folder, s3://, \
                         gs:// or az://"
                    )));
                }
            }
        };
        Ok(Self { place, settings })
    }

    /// The folder, unless it is a bucket.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Bucket(_) => None,
        }
    }

    /// The object store there, and what comes before every key in it, for whoever keeps something
    /// else than a registry in the same way. A folder is made, or if not `make` has to be there.
    pub fn store(&self, make: bool) -> Result<(Arc<dyn ObjectStore>, Key)> {
        let opened = self.open(make)?;
        Ok((opened.store, opened.prefix))
    }

    /// Connects to nothing yet, except that a folder is made, or if not `make` has to be there.
    pub(crate) fn open(&self, make: bool) -> Result<Opened> {
        let url = match &self.place {
            Place::Folder(folder) => return open_folder(folder, make),
            Place::Bucket(url) => url,
        };
        // Two crates of TLS ask for a default; whoever set one before us is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (scheme, prefix) = ObjectStoreScheme::parse(url)
            .map_err(|error| Error::invalid(format!("{url}: {error}")))?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: 6,
            retry_timeout: Duration::from_secs(60),
        };
        // Later settings win: what the user says beats the defaults put in first.
        macro_rules! build {
            ($builder:ty) => {{
                // Not as whole options: Google's have to allow HTTP, which its machines use to ask
                // for credentials.
                let builder = <$builder>::new().with_retry(retry);
                let builder = builder.with_config("timeout".parse()?, "60 seconds");
                let known = self.settings.iter().filter_map(|(name, value)| {
                    Some((name.to_ascii_lowercase().parse().ok()?, value))
                });
                let builder = known
                    .fold(builder, |builder, (key, value)| builder.with_config(key, value))
                    .with_url(url.as_str());
                let store = Arc::new(builder.build()?);
                Ok(Opened { store: store.clone(), parts: Some(store), prefix, folder: None })
            }};
        }
        match scheme {
            ObjectStoreScheme::AmazonS3 => build!(AmazonS3Builder),
            ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder),
            ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder),
            _ => Err(Error::invalid(format!("{url}: expected s3://, gs:// or az://"))),
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Folder(folder) => folder.display().fmt(f),
            Place::Bucket(url) => url.fmt(f),
        }
    }
}

// The settings hold secrets.
impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Location({self})")
    }
}

/// A store, ready to be asked.
pub(crate) struct Opened {
    pub store: Arc<dyn ObjectStore>,
    /// The same store, if it takes an object in parts that outlive the process.
    pub parts: Option<Arc<dyn MultipartStore>>,
    /// What comes before every key.
    pub prefix: Key,
    /// Where the objects are, if they are files of this machine.
    pub folder: Option<PathBuf>,
}

fn open_folder(folder: &Path, make: bool) -> Result<Opened> {
    if make {
        std::fs::create_dir_all(folder).map_err(|error| error::file(folder, &error))?;
    }
    // What has been acknowledged survives a loss of power.
    let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
    let folder = Some(folder.to_owned());
    Ok(Opened { store: Arc::new(store), parts: None, prefix: Key::default(), folder })
}

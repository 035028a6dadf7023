//! Where a test's registry is, and what is put into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use model::{Format, Manifest, Signature};
use registry::{By, Clock, Draft, Location, Registry, Source, Version};
use sha2::{Digest, Sha256};

/// A location, a database and a clock that only the test moves.
pub struct Place {
    pub location: Location,
    pub database: Option<String>,
    /// What the environment would say to the store.
    pub settings: Vec<(String, String)>,
    pub time: Arc<AtomicI64>,
    /// Whatever must live as long as this.
    _folder: Option<tempfile::TempDir>,
}

/// When the tests' clocks start: 2026-11-24T00:00:00Z.
pub const START: i64 = 1_795_478_400_000_000;

impl Place {
    /// A new folder with a SQLite file in it.
    pub fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("registry");
        let mut place = Self::at(location.to_str().unwrap(), Vec::new(), None);
        place._folder = Some(folder);
        place
    }

    /// Any other; without a database it is in a temporary folder.
    pub fn at(url: &str, settings: Vec<(String, String)>, database: Option<String>) -> Self {
        let known: BTreeMap<_, _> = settings.iter().cloned().collect();
        let location = Location::parse(url, known).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let database = database.or_else(|| {
            let path = folder.path().join("rows.db");
            location.folder().is_none().then(|| path.to_str().unwrap().to_owned())
        });
        Self {
            location,
            database,
            settings,
            time: Arc::new(AtomicI64::new(START)),
            _folder: Some(folder),
        }
    }

    /// Opens the registry, as another process would.
    pub async fn open(&self) -> Arc<Registry> {
        let opened = Registry::open(&self.location, self.database.as_deref(), self.clock()).await;
        Arc::new(opened.unwrap())
    }

    pub fn clock(&self) -> Clock {
        let time = self.time.clone();
        Clock::new(move || jiff::Timestamp::from_microsecond(time.load(Ordering::SeqCst)).unwrap())
    }

    pub fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

/// Bytes that are the same for the same seed.
pub fn bytes(size: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..size).map(|_| random.u8(..)).collect()
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A version of one file with these bytes.
pub fn draft(model: &str, bytes: Bytes) -> Draft {
    let digest = digest(&bytes);
    let manifest = Manifest::new(Format::Onnx, digest, bytes.len() as u64, Signature::default());
    Draft::new(model, manifest, "model.onnx", Source::Bytes(bytes))
}

pub fn ada() -> By {
    By::new("ada")
}

/// Publishes a small version whose bytes depend on the seed.
pub async fn publish(registry: &Registry, model: &str, seed: u64) -> Version {
    registry.publish(&draft(model, bytes(100, seed)), &ada(), &|_| ()).await.unwrap()
}

pub async fn assert_consistent(registry: &Registry) {
    assert_eq!(registry.check(true).await.unwrap(), []);
}

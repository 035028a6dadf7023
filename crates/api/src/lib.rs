//! The only room that knows the wire: REST and gRPC, error bodies, OpenAPI, the pages.

use std::future::Future;
use std::pin::Pin;

use model::{ErrorCode, InstanceSettings};

/// What the repository endpoints change: the set of wanted models. The wiring provides it.
pub trait Control: Send + Sync + 'static {
    /// Loads or reloads a model from the repository and waits until it is ready or has failed.
    fn load<'a>(
        &'a self,
        name: &'a str,
        overrides: Load,
    ) -> Pin<Box<dyn Future<Output = Result<(), (ErrorCode, String)>> + Send + 'a>>;

    /// Unloads all versions of a model and waits until its last request is answered.
    fn unload<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), (ErrorCode, String)>> + Send + 'a>>;

    /// Models in the repository that are not loaded: name and version.
    fn available(&self) -> Vec<(String, String)>;
}

/// What a load request may say beside the model's name.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Replaces the settings found beside the model.
    pub settings: Option<InstanceSettings>,
    /// Files to load instead of those in the repository: `version/name` and contents.
    pub files: Vec<(String, bytes::Bytes)>,
}

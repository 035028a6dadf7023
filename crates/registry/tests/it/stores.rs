//! Every scenario on every store and database that can be had here.

use testkit::services::{Azure, Google, Postgres, S3};

use crate::place::Place;
use crate::scenarios;

#[tokio::test(flavor = "multi_thread")]
async fn on_a_folder_with_sqlite() {
    scenarios::all(|_| Place::folder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3() {
    let Some(s3) = S3::start() else { return };
    scenarios::all(|name| Place::at(&format!("s3://models/{name}"), s3.settings(), None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_azure_blob_storage() {
    let Some(azure) = Azure::start() else { return };
    scenarios::all(|name| Place::at(&format!("az://models/{name}"), azure.settings(), None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_google_cloud_storage() {
    let Some(google) = Google::start() else { return };
    scenarios::all(|name| Place::at(&format!("gs://models/{name}"), google.settings(), None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let location = folder.path().join(name);
        Place::at(location.to_str().unwrap(), Vec::new(), Some(postgres.database(name)))
    };
    scenarios::all(place).await;
}

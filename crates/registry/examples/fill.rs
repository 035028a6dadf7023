//! Fills a registry with many small versions, for measurements:
//! `cargo run -p registry --example fill -- FOLDER [DATABASE] [MODELS] [VERSIONS]`.

use std::sync::Arc;

use model::{DataType, Dimension, Format, Manifest, Signature, TensorSpec};
use registry::{By, Clock, Draft, Expected, Location, Registry, Source};
use sha2::{Digest, Sha256};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected FOLDER [DATABASE] [MODELS] [VERSIONS]")?;
    let database = arguments.next().filter(|text| !text.is_empty());
    let models: usize = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let versions: u64 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let location = Location::parse(&folder, Default::default())?;
    let registry = Registry::open(&location, database.as_deref(), Clock::system()).await?;
    let registry = Arc::new(registry);
    let mut tasks = tokio::task::JoinSet::new();
    // The rows are written one after another anyway; the files are not.
    for worker in 0..8 {
        let registry = registry.clone();
        tasks.spawn(async move {
            for model in (worker..models).step_by(8) {
                fill(&registry, &format!("model-{model:04}"), versions).await?;
            }
            Ok::<(), registry::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    println!("{models} models with {versions} versions each");
    Ok(())
}

/// Publishes the versions of one model, and sets three aliases.
async fn fill(registry: &Registry, model: &str, versions: u64) -> registry::Result<()> {
    let by = By::new("fill").because("to be measured");
    for number in 1..=versions {
        // Versions of a kind that people have: a table of 20 columns, and a line for each measure.
        let bytes = format!("{model} {number}");
        let digest = Sha256::digest(&bytes);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{digest}");
        let spec = |name: String| {
            TensorSpec::new(name, DataType::Fp32, vec![Dimension::Any, Dimension::Fixed(1)])
        };
        let signature = Signature {
            inputs: (0..20).map(|column| spec(format!("column_{column}"))).collect(),
            outputs: vec![spec("probabilities".into())],
            batched: true,
        };
        let manifest = Manifest::new(Format::Onnx, digest, bytes.len() as u64, signature);
        let mut draft = Draft::new(model, manifest, "model.onnx", Source::Bytes(bytes.into()));
        draft.metadata.insert("auc".to_owned(), format!("0.{number}"));
        registry.publish(&draft, &by, &|_| ()).await?;
    }
    for (alias, number) in [("champion", versions), ("candidate", 1), ("old", 1)] {
        registry.set_alias(model, alias, Some(number), Expected::Nothing, &by).await?;
    }
    Ok(())
}

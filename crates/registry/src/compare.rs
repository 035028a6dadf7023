//! What is different between two versions.

use std::collections::{BTreeMap, BTreeSet};

use crate::Version;

/// What is different between two versions in bytes, signature, metadata and origin: by the name of
/// the trait, the one's and the other's, where they have it.
pub fn differences(one: &Version, other: &Version) -> BTreeMap<String, [Option<String>; 2]> {
    let (mut a, mut b) = (traits(one), traits(other));
    let names: BTreeSet<String> = a.keys().chain(b.keys()).cloned().collect();
    let pairs = names.into_iter().map(|name| {
        let pair = [a.remove(&name), b.remove(&name)];
        (name, pair)
    });
    pairs.filter(|(_, [a, b])| a != b).collect()
}

/// What can be different, by name.
fn traits(version: &Version) -> BTreeMap<String, String> {
    let manifest = &version.manifest;
    let mut traits = BTreeMap::from([
        ("digest".to_owned(), version.digest.clone()),
        ("size".to_owned(), version.size.to_string()),
        ("batched".to_owned(), manifest.signature.batched.to_string()),
    ]);
    let sides = [("input", &manifest.signature.inputs), ("output", &manifest.signature.outputs)];
    for (side, specs) in sides {
        for spec in specs {
            let mut text = format!("{} {:?}", spec.datatype, spec.extents());
            if !spec.labels.is_empty() {
                text.push_str(&format!(" of {}", spec.labels.join(", ")));
            }
            traits.insert(format!("{side} {}", spec.name), text);
        }
    }
    for (key, value) in &version.metadata {
        traits.insert(format!("meta {key}"), value.clone());
    }
    for (key, value) in &manifest.metadata {
        traits.insert(format!("model {key}"), value.clone());
    }
    let lineage = &version.lineage;
    let parent = lineage.parent.map(|parent| parent.to_string());
    for (name, value) in
        [("parent", parent), ("data", lineage.data.clone()), ("commit", lineage.commit.clone())]
    {
        if let Some(value) = value {
            traits.insert(name.to_owned(), value);
        }
    }
    traits
}

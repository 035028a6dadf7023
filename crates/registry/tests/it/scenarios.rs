//! What must hold on every store and every database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::ErrorCode;
use registry::{Expected, FileKind, Grace, Share, Source, Stage};

use crate::place::{Place, ada, assert_consistent, bytes, draft, publish};
use crate::rollouts;

/// Runs every scenario, each on a registry of its own.
pub async fn all(fresh: impl Fn(&str) -> Place) {
    macro_rules! each {
        ($($scenario:ident),* $(,)?) => {
            $(
                println!("scenario {}", stringify!($scenario));
                $scenario(&fresh(stringify!($scenario))).await;
            )*
        };
    }
    each!(
        a_version_comes_back_as_it_was,
        the_same_bytes_are_stored_once,
        large_files_come_back_as_they_were,
        aliases_move_by_compare_and_swap,
        what_is_in_use_stays,
        deleted_versions_are_collected_after_their_grace,
        numbers_are_dense_however_many_publish,
        one_of_many_wins_an_alias,
        collecting_beside_publishing_loses_nothing,
        assignments_follow,
        unknown_names_are_told,
        notes_are_kept_and_names_announced,
        long_lists_come_in_pages,
    );
    println!("scenario rollouts");
    rollouts::all(&fresh("rollouts")).await;
}

async fn a_version_comes_back_as_it_was(place: &Place) {
    let registry = place.open().await;
    let mut draft = draft("fraud", bytes(1000, 1));
    draft.files.insert("card.md".into(), (FileKind::Attachment, Source::Bytes("# Card".into())));
    draft.metadata.insert("team".into(), "risk".into());
    draft.lineage.commit = Some("abc123".into());
    draft.alias = Some("candidate".into());
    let published = registry.publish(&draft, &ada(), &|_| ()).await.unwrap();
    assert_eq!((published.number, published.stage), (1, Stage::Active));

    let again = place.open().await;
    let found = again.resolve(&"fraud@candidate".parse().unwrap()).await.unwrap();
    assert_eq!(found, published);
    assert_eq!(found.manifest, draft.manifest);
    assert_eq!(found.metadata["team"], "risk");
    assert_eq!(found.aliases, ["candidate"]);
    assert_eq!(found.who, "ada");
    let names: Vec<_> = found.files.iter().map(|file| &*file.name).collect();
    assert_eq!(names, ["card.md", "model.onnx"]);
    assert_eq!(again.read(&found, &found.files[1]).await.unwrap(), bytes(1000, 1));

    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("deep/card.md");
    again.copy(&found, &found.files[0], &target).await.unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "# Card");
    assert_eq!(target.parent().unwrap().read_dir().unwrap().count(), 1);

    let models = again.models().await.unwrap();
    assert_eq!((&*models[0].name, models[0].versions), ("fraud", 1));
    assert_eq!(models[0].aliases["candidate"], 1);
    assert_consistent(&again).await;
}

async fn the_same_bytes_are_stored_once(place: &Place) {
    let registry = place.open().await;
    for model in ["a", "b", "a"] {
        publish(&registry, model, 7).await;
    }
    assert_eq!(registry.versions("a").await.unwrap().len(), 2);
    for (model, number) in [("a", 1), ("a", 2), ("b", 1)] {
        registry.delete(model, number, &ada()).await.unwrap();
    }
    place.pass(10);
    let none = Grace { versions: Duration::ZERO, uploads: Duration::ZERO };
    let collected = registry.collect(none, &ada()).await.unwrap();
    assert_eq!((collected.versions, collected.blobs, collected.bytes), (3, 1, 100));
    assert_consistent(&registry).await;
}

async fn large_files_come_back_as_they_were(place: &Place) {
    let registry = place.open().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let contents = bytes(21 << 20, 3);
    std::fs::write(&path, &contents).unwrap();
    let mut draft = draft("large", contents.clone());
    draft.files.insert("model.onnx".into(), (FileKind::Model, Source::Path(path)));
    let last = AtomicU64::new(0);
    let progress = |progress: registry::Progress| {
        assert!(progress.done >= last.swap(progress.done, Ordering::SeqCst));
        assert_eq!(progress.total, 21 << 20);
    };
    let version = registry.publish(&draft, &ada(), &progress).await.unwrap();
    assert_eq!(last.load(Ordering::SeqCst), 21 << 20);
    assert!(registry.read(&version, &version.files[0]).await.unwrap() == contents);
    assert_consistent(&registry).await;
}

async fn aliases_move_by_compare_and_swap(place: &Place) {
    let registry = place.open().await;
    publish(&registry, "m", 1).await;
    publish(&registry, "m", 2).await;
    let set = async |to, expected| registry.set_alias("m", "champion", to, expected, &ada()).await;
    set(Some(1), Expected::Nothing).await.unwrap();
    let refused = set(Some(2), Expected::Nothing).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FailedPrecondition);
    assert!(refused.to_string().contains("names version 1 and not nothing"), "{refused}");
    set(Some(2), Expected::Version(1)).await.unwrap();
    set(Some(1), Expected::Version(1)).await.unwrap_err();
    assert_eq!(registry.resolve(&"m".parse().unwrap()).await.unwrap().number, 2);
    set(None, Expected::Version(2)).await.unwrap();
    let gone = registry.resolve(&"m".parse().unwrap()).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
    set(None, Expected::Anything).await.unwrap_err();
    set(Some(3), Expected::Anything).await.unwrap_err();
    assert_consistent(&registry).await;
}

async fn what_is_in_use_stays(place: &Place) {
    let registry = place.open().await;
    for seed in 1..=3 {
        publish(&registry, "m", seed).await;
    }
    registry.set_alias("m", "stable", Some(1), Expected::Anything, &ada()).await.unwrap();
    let share = Share::of;
    let split = vec![share(1, 90), share(2, 10)];
    registry.split_traffic("m", split.clone(), Some(vec![]), &ada()).await.unwrap();
    registry.split_traffic("m", vec![], Some(vec![]), &ada()).await.unwrap_err();
    for version in [1, 2] {
        let refused = registry.delete("m", version, &ada()).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::FailedPrecondition, "{refused}");
        registry.archive("m", version, &ada()).await.unwrap_err();
    }
    registry.archive("m", 3, &ada()).await.unwrap();
    registry.set_alias("m", "stable", Some(3), Expected::Anything, &ada()).await.unwrap_err();
    registry.split_traffic("m", vec![share(3, 1)], None, &ada()).await.unwrap_err();
    registry.restore("m", 3, &ada()).await.unwrap();
    // Promoting ends the split.
    registry.set_alias("m", "champion", Some(3), Expected::Anything, &ada()).await.unwrap();
    registry.delete("m", 2, &ada()).await.unwrap();
    assert_consistent(&registry).await;
}

async fn deleted_versions_are_collected_after_their_grace(place: &Place) {
    let registry = place.open().await;
    let kept = publish(&registry, "m", 1).await;
    publish(&registry, "m", 2).await;
    publish(&registry, "m", 3).await;
    registry.delete("m", 2, &ada()).await.unwrap();
    registry.delete("m", 3, &ada()).await.unwrap();
    let grace = Grace { versions: Duration::from_secs(3600), uploads: Duration::from_secs(60) };
    place.pass(1800);
    assert_eq!(registry.collect(grace, &ada()).await.unwrap().blobs, 0);
    registry.restore("m", 2, &ada()).await.unwrap();
    place.pass(1801);
    let collected = registry.collect(grace, &ada()).await.unwrap();
    assert_eq!((collected.versions, collected.blobs), (1, 1));
    assert_eq!(registry.collect(grace, &ada()).await.unwrap().blobs, 0);

    let purged = registry.resolve(&"m:3".parse().unwrap()).await.unwrap();
    assert_eq!((purged.stage, purged.files.len()), (Stage::Purged, 0));
    registry.restore("m", 3, &ada()).await.unwrap_err();
    assert!(registry.read(&kept, &kept.files[0]).await.is_ok());
    // The number is not used again, and the bytes can come back.
    let again = publish(&registry, "m", 3).await;
    assert_eq!(again.number, 4);
    assert_eq!(registry.read(&again, &again.files[0]).await.unwrap(), bytes(100, 3));
    assert_consistent(&registry).await;
}

async fn numbers_are_dense_however_many_publish(place: &Place) {
    let registries = [place.open().await, place.open().await, place.open().await];
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..12u64 {
        let registry = registries[writer as usize % 3].clone();
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            for seed in 0..3 {
                // Some bytes are published by several at once.
                numbers.push(publish(&registry, "busy", writer % 4 * 10 + seed).await.number);
            }
            numbers
        });
    }
    let mut numbers: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=36).collect::<Vec<_>>());
    assert_consistent(&registries[0]).await;
}

async fn one_of_many_wins_an_alias(place: &Place) {
    let registries = [place.open().await, place.open().await];
    for seed in 1..=8 {
        publish(&registries[0], "m", seed).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for version in 1..=8u64 {
        let registry = registries[version as usize % 2].clone();
        tasks.spawn(async move {
            let (by, to) = (ada(), Some(version));
            registry.set_alias("m", "champion", to, Expected::Nothing, &by).await.is_ok()
        });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    assert_consistent(&registries[1]).await;
}

async fn collecting_beside_publishing_loses_nothing(place: &Place) {
    let none = Grace { versions: Duration::ZERO, uploads: Duration::ZERO };
    let publisher = place.open().await;
    let collector = place.open().await;
    let collecting = tokio::spawn(async move {
        for _ in 0..15 {
            collector.collect(none, &ada()).await.unwrap();
        }
    });
    for round in 0..8 {
        // With no grace at all an upload may be given up again and again, but says so.
        let draft = draft("m", bytes(100, round % 3));
        match publisher.publish(&draft, &ada(), &|_| ()).await {
            Ok(version) => {
                let found = publisher.read(&version, &version.files[0]).await.unwrap();
                assert_eq!(found, bytes(100, round % 3));
                publisher.delete("m", version.number, &ada()).await.unwrap();
            }
            Err(error) => assert_eq!(error.code(), ErrorCode::Unavailable, "{error}"),
        }
    }
    collecting.await.unwrap();
    assert_consistent(&publisher).await;
}

async fn assignments_follow(place: &Place) {
    let (writer, follower) = (place.open().await, place.open().await);
    publish(&writer, "m", 1).await;
    publish(&writer, "m", 2).await;
    let mut receiver = follower.watch(Duration::ZERO).await.unwrap();
    assert!(receiver.borrow_and_update().models.is_empty());
    writer.set_alias("m", "champion", Some(1), Expected::Nothing, &ada()).await.unwrap();
    let changed = tokio::time::timeout(Duration::from_secs(5), receiver.changed()).await;
    changed.expect("a change arrives").unwrap();
    let versions = |receiver: &mut tokio::sync::watch::Receiver<model::Assignments>| {
        let assignments = receiver.borrow_and_update();
        let assigned = assignments.models["m"].iter();
        assigned.map(|a| (a.version.clone(), a.share)).collect::<Vec<_>>()
    };
    assert_eq!(versions(&mut receiver), [("1".to_owned(), 1)]);
    writer.set_alias("m", "candidate", Some(2), Expected::Nothing, &ada()).await.unwrap();
    let changed = tokio::time::timeout(Duration::from_secs(5), receiver.changed()).await;
    changed.expect("a change arrives").unwrap();
    assert_eq!(versions(&mut receiver), [("1".to_owned(), 1), ("2".to_owned(), 0)]);
}

async fn unknown_names_are_told(place: &Place) {
    let registry = place.open().await;
    publish(&registry, "m", 1).await;
    for reference in ["nobody:1", "nobody@champion", "m:2", "m@champion"] {
        let error = registry.resolve(&reference.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{reference}: {error}");
    }
    let by = ada();
    let errors = [
        registry.versions("nobody").await.map(drop).unwrap_err(),
        registry.history("nobody").await.map(drop).unwrap_err(),
        registry.archive("nobody", 1, &by).await.map(drop).unwrap_err(),
        registry.delete("m", 2, &by).await.map(drop).unwrap_err(),
        registry.restore("m", 2, &by).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
    }
    let mut orphan = draft("m", Bytes::from_static(b"x"));
    orphan.lineage.parent = Some(9);
    let error = registry.publish(&orphan, &by, &|_| ()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
    for name in ["", "../x", "a/b", "a:b", "a@b"] {
        let error = registry.publish(&draft(name, "x".into()), &by, &|_| ()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{name}");
    }
    // What was refused has left no number unused.
    assert_eq!(publish(&registry, "m", 2).await.number, 2);
    assert_consistent(&registry).await;
}

async fn notes_are_kept_and_names_announced(place: &Place) {
    let registry = place.open().await;
    registry.announce("fraud", true, &ada()).await.unwrap();
    let again = registry.announce("fraud", true, &ada()).await.unwrap_err();
    assert_eq!(again.code(), ErrorCode::AlreadyExists);
    registry.note("fraud", None, "team", Some("risk".into()), &ada()).await.unwrap();
    let entry = registry.catalogue(Some("fraud")).await.unwrap().pop().unwrap();
    assert_eq!((entry.is_there(), entry.newest, &*entry.notes["team"]), (true, None, "risk"));
    // What has no version yet is announced, and no more than that.
    assert!(registry.models().await.unwrap().is_empty());
    assert_eq!(registry.versions("fraud").await.unwrap_err().code(), ErrorCode::NotFound);

    let mut draft = draft("fraud", bytes(100, 1));
    draft.metadata.insert("auc".into(), "0.9".into());
    assert_eq!(registry.publish(&draft, &ada(), &|_| ()).await.unwrap().number, 1);
    place.pass(10);
    registry.note("fraud", Some(1), "checked", Some("yes".into()), &ada()).await.unwrap();
    registry.note("fraud", Some(1), "checked", Some("twice".into()), &ada()).await.unwrap();
    let described = registry.describe(None).await.unwrap().pop().unwrap();
    assert_eq!((&*described.notes["checked"], &*described.metadata["auc"]), ("twice", "0.9"));
    assert_eq!(registry.describe_version("fraud", 1).await.unwrap(), described);
    registry.note("fraud", Some(1), "checked", None, &ada()).await.unwrap();
    for (version, key, value, code) in [
        (Some(1), "checked", None, ErrorCode::NotFound),
        (Some(9), "x", Some("y".to_owned()), ErrorCode::NotFound),
        (None, "", Some("y".to_owned()), ErrorCode::InvalidArgument),
        (None, "a\u{0}b", Some("y".to_owned()), ErrorCode::InvalidArgument),
        (None, "x", Some("a\u{0}b".to_owned()), ErrorCode::InvalidArgument),
        (None, "x", Some("y".repeat(100_001)), ErrorCode::InvalidArgument),
    ] {
        let error = registry.note("fraud", version, key, value, &ada()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let unknown = registry.note("no", None, "x", Some("y".into()), &ada()).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::NotFound);

    registry.announce("fraud", false, &ada()).await.unwrap();
    registry.delete("fraud", 1, &ada()).await.unwrap();
    let entry = registry.catalogue(None).await.unwrap().pop().unwrap();
    assert!(!entry.is_there() && entry.created < entry.changed);
    registry.announce("fraud", true, &ada()).await.unwrap();
    assert_eq!(registry.publish(&draft, &ada(), &|_| ()).await.unwrap().number, 2);
    assert_consistent(&registry).await;
}

async fn long_lists_come_in_pages(place: &Place) {
    let registry = place.open().await;
    for seed in 0..5 {
        publish(&registry, "fraud", seed).await;
    }
    for name in ["Zebra", "ads", "größe"] {
        publish(&registry, name, 9).await;
    }
    let mut seen = Vec::new();
    let mut next = None;
    loop {
        let page = registry.versions_before("fraud", next, 2).await.unwrap();
        seen.extend(page.entries.iter().map(|version| version.number));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    // By the bytes of their names, whatever the database makes of letters.
    let first = registry.models_after(None, 2).await.unwrap();
    let rest = registry.models_after(first.next.as_deref(), 2).await.unwrap();
    let names = [first.entries, rest.entries].concat();
    let names: Vec<&str> = names.iter().map(|model| &*model.name).collect();
    assert_eq!((names, rest.next), (vec!["Zebra", "ads", "fraud", "größe"], None));
    let oldest = registry.history_after("fraud", None, 3).await.unwrap();
    let newest = registry.history_before("fraud", None, 3).await.unwrap();
    assert!(oldest.entries[0].sequence < newest.entries[0].sequence);
    assert_eq!(oldest.entries[2].sequence, newest.entries[2].sequence);
    let error = registry.versions_before("no", None, 2).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
}

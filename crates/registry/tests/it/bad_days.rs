//! What goes wrong, one by one: the error says what and for whom, and nothing half-done is left.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::ErrorCode;
use registry::{Expected, FileKind, Registry, Source};
use testkit::services::{Postgres, S3};

use crate::place::{Place, ada, assert_consistent, bytes, draft, publish};

/// The only object of a folder's registry.
fn only_object(place: &Place) -> std::path::PathBuf {
    let blobs = place.location.folder().unwrap().join("blobs");
    let shelf = blobs.read_dir().unwrap().next().unwrap().unwrap().path();
    shelf.read_dir().unwrap().next().unwrap().unwrap().path()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_blob_is_noticed_and_mended_by_pushing_again() {
    let place = Place::folder();
    let registry = place.open().await;
    let version = publish(&registry, "m", 1).await;
    let object = only_object(&place);
    std::fs::write(&object, bytes(100, 2)).unwrap();
    let error = registry.read(&version, &version.files[0]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Internal);
    assert!(error.to_string().contains("instead of sha256:"), "{error}");
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("model.onnx");
    registry.copy(&version, &version.files[0], &file).await.unwrap_err();
    assert_eq!(target.path().read_dir().unwrap().count(), 0, "nothing is left of it");
    assert_eq!(registry.check(true).await.unwrap().len(), 1);

    // Others are seen without reading them, and the same bytes put all of it right.
    for size in [Some(100), Some(50), None] {
        let object = only_object(&place);
        match size {
            Some(size) => std::fs::write(&object, bytes(size, 2)).unwrap(),
            None => std::fs::remove_file(&object).unwrap(),
        }
        assert!(!registry.check(size == Some(100)).await.unwrap().is_empty());
        publish(&registry, "m", 1).await;
        assert_eq!(registry.read(&version, &version.files[0]).await.unwrap(), bytes(100, 1));
        registry.collect(registry::Grace::default(), &ada()).await.unwrap();
        assert_consistent(&registry).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_what_was_checked_is_refused() {
    let place = Place::folder();
    let registry = place.open().await;
    let mut draft = draft("m", bytes(100, 1));
    let other = (FileKind::Model, Source::Bytes(bytes(100, 2)));
    draft.files.insert("model.onnx".into(), other);
    let error = registry.publish(&draft, &ada(), &|_| ()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FailedPrecondition);
    assert!(error.to_string().contains("has changed since"), "{error}");
    assert_eq!(registry.models().await.unwrap(), []);
    let missing = (FileKind::Model, Source::Path("/nowhere/model.onnx".into()));
    draft.files.insert("model.onnx".into(), missing);
    let error = registry.publish(&draft, &ada(), &|_| ()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_and_rows_of_different_registries_do_not_meet() {
    let (one, other) = (Place::folder(), Place::folder());
    publish(&*one.open().await, "m", 1).await;
    other.open().await;
    let rows = other.location.folder().unwrap().join("registry.db");
    let opened = Registry::open(&one.location, rows.to_str(), one.clock()).await;
    let error = opened.err().expect("is refused");
    assert_eq!(error.code(), ErrorCode::FailedPrecondition);
    assert!(error.to_string().contains("belong to another database"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_open_a_new_registry_at_once() {
    let place = Arc::new(Place::folder());
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..8 {
        let place = place.clone();
        tasks.spawn(async move { publish(&*place.open().await, "m", seed).await.number });
    }
    let mut numbers = tasks.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let Some(disk) = small_disk() else {
        println!("SKIPPED: no small file system can be mounted here");
        return;
    };
    let rows = tempfile::tempdir().unwrap();
    let database = rows.path().join("rows.db").to_str().unwrap().to_owned();
    let place = Place::at(disk.0.path().to_str().unwrap(), Vec::new(), Some(database));
    let registry = place.open().await;
    let first = publish(&registry, "m", 1).await;
    for size in [3 << 20, 9 << 20] {
        let draft = draft("m", bytes(size, 5));
        let error = registry.publish(&draft, &ada(), &|_| ()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ResourceExhausted, "{error}");
    }
    assert_eq!(publish(&registry, "m", 2).await.number, 2);
    assert!(registry.read(&first, &first.files[0]).await.is_ok());
    assert_consistent(&registry).await;
}

/// Two MiB of memory as a disk, unmounted when it is dropped.
struct Disk(tempfile::TempDir);

fn small_disk() -> Option<Disk> {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path());
    mount.output().is_ok_and(|output| output.status.success()).then(|| Disk(folder))
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_told_and_comes_back() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = Some(postgres.database("gone"));
    let place = Place::at(folder.path().to_str().unwrap(), Vec::new(), database);
    let registry = place.open().await;
    publish(&registry, "m", 1).await;
    publish(&registry, "m", 2).await;
    registry.set_alias("m", "champion", Some(1), Expected::Nothing, &ada()).await.unwrap();
    let mut receiver = registry.watch(Duration::ZERO).await.unwrap();
    receiver.borrow_and_update();
    postgres.stop();
    let by = ada();
    let errors = [
        registry.models().await.map(drop).unwrap_err(),
        registry
            .set_alias("m", "champion", Some(2), Expected::Anything, &by)
            .await
            .map(drop)
            .unwrap_err(),
        registry.publish(&draft("m", bytes(9, 3)), &by, &|_| ()).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    }
    assert_eq!(receiver.borrow().models["m"][0].version, "1", "what was last known stays");
    postgres.resume();
    registry.set_alias("m", "champion", Some(2), Expected::Version(1), &by).await.unwrap();
    let changed = tokio::time::timeout(Duration::from_secs(20), receiver.changed()).await;
    changed.expect("a change arrives").unwrap();
    assert_eq!(receiver.borrow().models["m"][0].version, "2");
    assert_consistent(&registry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_in_the_middle_of_a_push_leaves_nothing_half_done() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = Some(postgres.database("middle"));
    let place = Place::at(folder.path().to_str().unwrap(), Vec::new(), database);
    let registry = place.open().await;
    publish(&registry, "m", 1).await;
    let draft = draft("m", bytes(24 << 20, 2));
    let is_gone = AtomicBool::new(false);
    let report = |progress: registry::Progress| {
        if progress.done >= 8 << 20 && !is_gone.swap(true, Ordering::SeqCst) {
            postgres.stop();
        }
    };
    let error = registry.publish(&draft, &ada(), &report).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(is_gone.load(Ordering::SeqCst));
    postgres.resume();
    assert_eq!(registry.versions("m").await.unwrap().len(), 1);
    assert_consistent(&registry).await;
    assert_eq!(registry.publish(&draft, &ada(), &|_| ()).await.unwrap().number, 2);
    assert_consistent(&registry).await;
}

/// A registry whose store is reached through a proxy that can misbehave.
fn behind_a_proxy(s3: &S3, url: &str) -> (Proxy, Place) {
    let port = s3.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port);
    let mut settings = s3.settings();
    settings.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
    settings.push(("AWS_ENDPOINT_URL".into(), format!("http://127.0.0.1:{}", proxy.port)));
    let place = Place::at(url, settings, None);
    (proxy, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_503_is_asked_again() {
    let Some(s3) = S3::start() else { return };
    let (proxy, place) = behind_a_proxy(&s3, "s3://models/flaky");
    let registry = place.open().await;
    // Every third request is refused, and each waits a while.
    proxy.refuse_every.store(3, Ordering::SeqCst);
    let version = publish(&registry, "m", 1).await;
    assert_eq!(registry.read(&version, &version.files[0]).await.unwrap(), bytes(100, 1));
    assert_consistent(&registry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_answers_slowly_is_waited_for() {
    let Some(s3) = S3::start() else { return };
    let (proxy, place) = behind_a_proxy(&s3, "s3://models/slow");
    let registry = place.open().await;
    proxy.delay_ms.store(700, Ordering::SeqCst);
    let contents = bytes(33 << 20, 6);
    let version = registry.publish(&draft("m", contents.clone()), &ada(), &|_| ()).await.unwrap();
    assert!(registry.read(&version, &version.files[0]).await.unwrap() == contents);
    proxy.delay_ms.store(0, Ordering::SeqCst);
    assert_consistent(&registry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_never_goes_back_although_parts_are_sent_side_by_side() {
    let Some(s3) = S3::start() else { return };
    let (proxy, place) = behind_a_proxy(&s3, "s3://models/progress");
    let registry = place.open().await;
    proxy.refuse_every.store(4, Ordering::SeqCst);
    let told = Mutex::new(Vec::new());
    let report = |progress: registry::Progress| told.lock().unwrap().push(progress.done);
    let total = 70 << 20;
    registry.publish(&draft("m", bytes(total, 7)), &ada(), &report).await.unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(total as u64)));
    assert_eq!(told.iter().collect::<std::collections::BTreeSet<_>>().len(), 9, "each part");
    let most = proxy.most_at_once.load(Ordering::SeqCst);
    assert!((2..=5).contains(&most), "{most} requests at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_is_carried_on_with() {
    let Some(s3) = S3::start() else { return };
    let (_proxy, mut place) = behind_a_proxy(&s3, "s3://models/broken");
    let contents = bytes(40 << 20, 4);
    let draft = draft("m", contents.clone());
    {
        let registry = place.open().await;
        // Whoever pushes is gone after the third of five parts.
        let (told, mut third) = tokio::sync::mpsc::unbounded_channel();
        let pushing = tokio::spawn({
            let (registry, draft) = (registry.clone(), draft.clone());
            async move {
                let report = |progress: registry::Progress| {
                    if progress.done >= 24 << 20 {
                        let _ = told.send(());
                    }
                };
                registry.publish(&draft, &ada(), &report).await
            }
        });
        third.recv().await.unwrap();
        pushing.abort();
        assert!(pushing.await.is_err(), "it was cut off");
    }
    // Another proxy counts from now on: the first may still be reading what was under way.
    let (proxy, again) = behind_a_proxy(&s3, "s3://models/broken");
    place.location = again.location;
    let registry = place.open().await;
    assert!(registry.models().await.unwrap().is_empty());
    let version = registry.publish(&draft, &ada(), &|_| ()).await.unwrap();
    let after = proxy.parts.load(Ordering::SeqCst);
    assert!((1..=2).contains(&after), "{after} of 5 parts were sent again");
    assert!(registry.read(&version, &version.files[0]).await.unwrap() == contents);
    assert_consistent(&registry).await;
}

/// Stands before a store, refuses or delays requests and counts the parts that are sent.
#[derive(Clone, Default)]
struct Proxy {
    port: u16,
    refuse_every: Arc<AtomicUsize>,
    parts: Arc<AtomicUsize>,
    delay_ms: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(store: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, ..Self::default() };
        let (passing, count) = (Arc::new(proxy.clone()), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (passing, count) = (passing.clone(), count.clone());
                // A client that goes away ends its thread.
                std::thread::spawn(move || passing.pass_on(client, store, &count));
            }
        });
        proxy
    }

    /// One request on one connection, so that each can be refused.
    fn pass_on(&self, client: TcpStream, store: u16, count: &AtomicUsize) -> std::io::Result<()> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let passed = self.pass(client, store, count);
        self.now.fetch_sub(1, Ordering::SeqCst);
        passed
    }

    fn pass(&self, mut client: TcpStream, store: u16, count: &AtomicUsize) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut head = String::new();
        let mut size = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                size = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            if !lower.starts_with("connection:") {
                head.push_str(&line);
            }
        }
        let mut body = vec![0; size];
        std::io::Read::read_exact(&mut reader, &mut body)?;
        std::thread::sleep(Duration::from_millis(20 + self.delay_ms.load(Ordering::SeqCst) as u64));
        let every = self.refuse_every.load(Ordering::SeqCst);
        if every > 0 && (count.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every) {
            return client.write_all(
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        if head.contains("partNumber=") {
            self.parts.fetch_add(1, Ordering::SeqCst);
        }
        let mut server = TcpStream::connect(("127.0.0.1", store))?;
        server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        server.write_all(&body)?;
        std::io::copy(&mut server, &mut client)?;
        Ok(())
    }
}

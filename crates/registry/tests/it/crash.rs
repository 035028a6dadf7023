//! Processes that are killed at random moments, again and again, on one registry: nothing that was
//! acknowledged is lost, and nothing half-done is visible.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use registry::{Decision, Expected, Grace, Measurement, Record, Registry, Share, Start};
use serde_json::json;
use testkit::services::{Azure, Postgres, S3};

use crate::place::{Place, ada, assert_consistent, bytes, draft};

const MODELS: [&str; 3] = ["a", "b", "c"];
const NONE: Grace = Grace { versions: Duration::ZERO, uploads: Duration::ZERO };

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_a_folder_consistent() {
    kill_again_and_again(&Place::folder(), 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_postgres_consistent() {
    let Some(postgres) = Postgres::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = postgres.database("crash");
    let place = Place::at(folder.path().to_str().unwrap(), Vec::new(), Some(database));
    kill_again_and_again(&place, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_s3_consistent() {
    let Some(s3) = S3::start() else { return };
    kill_again_and_again(&Place::at("s3://models/crash", s3.settings(), None), 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_azure_consistent() {
    let Some(azure) = Azure::start() else { return };
    kill_again_and_again(&Place::at("az://models/crash", azure.settings(), None), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo nextest run -p registry --run-ignored only five_hundred"]
async fn five_hundred_kills_leave_a_folder_consistent() {
    kill_again_and_again(&Place::folder(), 500).await;
}

async fn kill_again_and_again(place: &Place, kills: u64) {
    let mut random = fastrand::Rng::with_seed(kills);
    // The tables are made in peace: that is one transaction, and the first of all.
    drop(place.open().await);
    let mut acknowledged = Vec::new();
    for round in 0..kills / 2 {
        let mut children = [start(place, round * 2), start(place, round * 2 + 1)];
        let readers = children.each_mut().map(|child| read(child.stdout.take().unwrap()));
        for (child, (_, told)) in children.iter_mut().zip(&readers) {
            // On a busy machine a process that is killed at once has not done anything yet.
            let awaited = random.usize(..4);
            for line in std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(30)).ok()) {
                let done = ["opened", "published", "recorded", ""][awaited];
                if line.starts_with(done) {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(random.u64(20..250)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for (reader, _) in readers {
            acknowledged.extend(reader.join().unwrap());
        }
        if round % 10 == 9 {
            assert_consistent(&*place.open().await).await;
        }
    }
    let registry = place.open().await;
    assert_consistent(&registry).await;
    let (versions, records) = nothing_acknowledged_is_lost(&registry, &acknowledged).await;
    println!("{kills} kills, {versions} versions and {records} changes acknowledged");
    assert!(versions as u64 > kills / 4 && records as u64 > kills / 4, "too little was tried");
    // What the killed left behind is garbage, and nothing else is.
    registry.collect(NONE, &ada()).await.unwrap();
    assert_consistent(&registry).await;
    assert_eq!(registry.collect(NONE, &ada()).await.unwrap().blobs, 0);
}

/// Every line of an output, once it ends, and each as soon as it is there.
fn read(output: ChildStdout) -> (JoinHandle<Vec<String>>, Receiver<String>) {
    let (sender, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map(Result::unwrap);
        // Nobody may be waiting any more.
        lines.inspect(|line| drop(sender.send(line.clone()))).collect()
    });
    (reader, told)
}

async fn nothing_acknowledged_is_lost(registry: &Registry, lines: &[String]) -> (usize, usize) {
    let mut history = BTreeMap::new();
    let mut digests = BTreeMap::new();
    for model in MODELS {
        // A model that nobody came to publish has neither.
        for record in registry.history(model).await.unwrap_or_default() {
            history.insert(record.sequence, record);
        }
        for version in registry.versions(model).await.unwrap_or_default() {
            digests.insert((model.to_owned(), version.number), version.digest);
        }
    }
    let (mut versions, mut records) = (0, 0);
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["published", model, number, digest] => {
                let number = number.parse().unwrap();
                assert_eq!(digests[&(model.to_owned(), number)], digest, "{line}");
                versions += 1;
            }
            ["recorded", model, sequence] => {
                let record = &history[&sequence.parse::<u64>().unwrap()];
                assert_eq!(record.model, model, "{line}");
                records += 1;
            }
            // What the test runner says, or a line that was cut off.
            _ => {}
        }
    }
    (versions, records)
}

/// Starts this program again, as the child below.
fn start(place: &Place, seed: u64) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let database = place.database.as_deref().unwrap_or_default();
    let settings = serde_json::to_string(&place.settings).unwrap();
    let told = format!("{seed}\n{}\n{database}\n{settings}\n", place.location);
    child.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
    child
}

#[tokio::test]
#[ignore = "started and killed by the tests above"]
async fn child() {
    let mut told = std::io::stdin().lines().map_while(Result::ok);
    let (Some(seed), Some(location), Some(database), Some(settings)) =
        (told.next(), told.next(), told.next(), told.next())
    else {
        println!("SKIPPED: is not a test by itself");
        return;
    };
    let database = (!database.is_empty()).then_some(database);
    let settings = serde_json::from_str(&settings).unwrap();
    let place = Place::at(&location, settings, database);
    // Later than everything before, so that what was deleted is out of grace at once.
    place.pass(seed.parse().unwrap());
    let registry = place.open().await;
    println!("opened");
    let mut random = fastrand::Rng::with_seed(seed.parse().unwrap());
    loop {
        act(&registry, &mut random).await;
    }
}

/// Does one thing, and says so once it is acknowledged. What is refused is refused.
async fn act(registry: &Registry, random: &mut fastrand::Rng) {
    let model = MODELS[random.usize(..MODELS.len())];
    let by = ada();
    let newest = registry.versions(model).await.ok().map_or(0, |versions| versions[0].number);
    let some = random.u64(..=newest);
    let recorded = match random.u8(..16) {
        0..5 => {
            // Some are sent as a stream; all are published again and again.
            let size = if random.u8(..10) == 0 { 9 << 20 } else { 2000 };
            let mut draft = draft(model, bytes(size, random.u64(..6)));
            draft.alias = random.bool().then(|| "candidate".to_owned());
            if let Ok(version) = registry.publish(&draft, &by, &|_| ()).await {
                println!("published {model} {} {}", version.number, version.digest);
            }
            return;
        }
        5..8 => registry.set_alias(model, "champion", Some(some), Expected::Anything, &by).await,
        8 => registry.archive(model, some, &by).await,
        9 => registry.restore(model, some, &by).await,
        10 => registry.delete(model, some, &by).await,
        11 => {
            let (champion, candidates) = (random.u64(..=newest), vec![some]);
            let shares = vec![Share::of(champion, 1), Share::shadow(some)];
            let (plan, report) = (json!({}), json!({}));
            let start = Start { champion, candidates, plan, report, shares };
            registry.start_rollout(model, start, &by).await
        }
        12 => registry.roll_back(model, None, &by).await,
        13..15 => match decide(registry, model, random).await {
            Some(recorded) => recorded,
            None => return,
        },
        _ => {
            // Nothing else may fail but what the other process takes away.
            let _ = registry.collect(NONE, &by).await;
            return;
        }
    };
    if let Ok(record) = recorded {
        println!("recorded {model} {}", record.sequence);
    }
}

/// Measures something for a model's rollout, and takes it into the report with a decision.
async fn decide(
    registry: &Registry,
    model: &str,
    random: &mut fastrand::Rng,
) -> Option<registry::Result<Record>> {
    let rollout = registry.rollout(model).await.ok()??;
    let (server, number) = (random.u64(..).to_string(), random.u64(..9));
    let measured = Measurement { server, number, body: json!({}) };
    registry.measure(rollout.number, &measured).await.ok()?;
    let used = registry.measurements(rollout.number).await.ok()?;
    let candidate = rollout.candidates[0];
    let decision = match random.u8(..4) {
        0 => Decision::Promote(candidate),
        1 => Decision::RollBack,
        _ => Decision::Move(vec![Share::of(rollout.champion, 9), Share::of(candidate, 1)]),
    };
    let by = ada();
    registry.advance(&rollout, &json!({}), &used, Some((decision, by))).await.transpose()
}

//! Servers that share a registry measure, join feedback and decide: once, whoever dies when.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use model::{
    ErrorCode, Format, Manifest, Observation, Outcome as Ended, Shadow, Signature, Tensor,
};
use registry::{
    By, Clock, Draft, Event, Expected, Feedback, Holding, Location, Outcome, Record, Registry,
    Share, Source, Start,
};
use rollout::{Driver, Plan, Report};
use serde_json::json;

/// A registry with three versions of "m", a clock that only the test moves, and two servers.
struct Yard {
    _folder: tempfile::TempDir,
    location: Location,
    time: Arc<AtomicI64>,
    registry: Arc<Registry>,
}

const START: i64 = 1_795_478_400_000_000;

impl Yard {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry");
        let location = Location::parse(path.to_str().unwrap(), Default::default()).unwrap();
        let time = Arc::new(AtomicI64::new(START));
        let registry = open(&location, &time).await;
        for bytes in ["a", "b", "c"] {
            let digest = format!("sha256:{}", digest(bytes));
            let manifest = Manifest::new(Format::Onnx, digest, 1, Signature::default());
            let draft = Draft::new("m", manifest, "model.onnx", Source::Bytes(bytes.into()));
            registry.publish(&draft, &By::new("ada"), &|_| ()).await.unwrap();
        }
        let by = By::new("ada");
        registry.set_alias("m", "champion", Some(1), Expected::Nothing, &by).await.unwrap();
        Self { _folder: folder, location, time, registry }
    }

    fn clock(&self) -> Clock {
        clock(&self.time)
    }

    async fn server(&self, name: &str) -> Driver {
        Driver::new(open(&self.location, &self.time).await, self.clock(), name)
    }

    async fn start(&self, plan: &Plan) -> Record {
        self.start_with(plan, &[2]).await
    }

    async fn start_with(&self, plan: &Plan, candidates: &[u64]) -> Record {
        let by = By::new("ada");
        rollout::start(&self.registry, "m", candidates, (plan, None), &by).await.unwrap()
    }

    fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// What the traffic looks like now: version, share, shadow.
    async fn traffic(&self) -> Vec<Share> {
        self.registry.at("m", Timestamp::MAX).await.unwrap().traffic
    }

    async fn ended(&self) -> Option<(Outcome, u64, String)> {
        let history = self.registry.history("m").await.unwrap();
        let last = history.last().unwrap();
        match &last.event {
            Event::RolloutEnded { outcome, champion } => {
                Some((*outcome, *champion, last.reason.clone()))
            }
            _ => None,
        }
    }

    /// A second of traffic on these servers, as the shares are; a part of the candidate's fails.
    async fn second(&self, servers: &[&Driver], requests: u64, candidate_fails: f64) {
        let traffic = self.traffic().await;
        let total: u32 = traffic.iter().map(|share| share.share).sum();
        let at = self.clock().now();
        for i in 0..requests {
            let server = servers[i as usize % servers.len()];
            let point = (i * 7919 % 10_000) as u32 * total / 10_000;
            let candidate = traffic.iter().find(|share| share.version == 2);
            let taken = candidate.is_some_and(|share| point < share.share);
            let fails = |i: u64| (i * 31 % 1000) as f64 / 1000.0 < candidate_fails;
            let caller = if taken { 2 } else { 1 };
            let failed = taken && fails(i);
            server.observe(&observation(caller, i, at, failed, None));
            if candidate.is_some_and(|share| share.shadow) {
                server.observe(&observation(2, i, at, fails(i), Some(1)));
            }
        }
        self.pass(1);
    }
}

async fn open(location: &Location, time: &Arc<AtomicI64>) -> Arc<Registry> {
    Arc::new(Registry::open(location, None, clock(time)).await.unwrap())
}

fn clock(time: &Arc<AtomicI64>) -> Clock {
    let time = time.clone();
    Clock::new(move || Timestamp::from_microsecond(time.load(Ordering::SeqCst)).unwrap())
}

fn digest(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn observation(
    version: u64,
    i: u64,
    at: Timestamp,
    failed: bool,
    shadow_of: Option<u64>,
) -> Observation {
    let output: Arc<[Tensor]> = [Tensor::new(vec![1, 1], vec![(i % 10) as f32]).unwrap()].into();
    Observation {
        model: "m".into(),
        version: version.to_string().into(),
        signature: Arc::default(),
        id: Some(format!("r{i}").into()),
        key: None,
        at: UNIX_EPOCH + Duration::from_micros(at.as_microsecond() as u64),
        queue: Duration::ZERO,
        compute: Duration::from_micros(900 + i % 200),
        batch_size: 1,
        outcome: if failed { Ended::Failed(ErrorCode::Internal) } else { Ended::Answered },
        inputs: [].into(),
        outputs: if failed { [].into() } else { output.clone() },
        shadow: shadow_of
            .map(|version| Shadow { version: version.to_string().into(), outputs: output }),
    }
}

/// Short steps; everything else as it is.
fn plan() -> Plan {
    Plan::parse(
        r#"
        block = "1s"
        settle = "1s"
        [[steps]]
        shadow = true
        time = "10s"
        requests = 100
        [[steps]]
        share = 10
        time = "10s"
        requests = 50
        [[steps]]
        share = 100
        shadow = true
        time = "5s"
        "#,
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_is_as_good_is_promoted_step_by_step() {
    let yard = Yard::new().await;
    let (mut a, mut b) = (yard.server("a").await, yard.server("b").await);
    yard.start(&plan()).await;
    assert!(yard.traffic().await[1].shadow);
    for _ in 0..60 {
        a.turn().await.unwrap();
        b.turn().await.unwrap();
        if yard.ended().await.is_some() {
            break;
        }
        assert!(a.watched().borrow().contains("m"));
        yard.second(&[&a, &b], 100, 0.0).await;
    }
    let (outcome, champion, _) = yard.ended().await.expect("it ends within a minute");
    assert_eq!((outcome, champion), (Outcome::Promoted, 2));
    let history = yard.registry.history("m").await.unwrap();
    let moved: Vec<&Record> = history
        .iter()
        .filter(|record| matches!(record.event, Event::RolloutMoved { .. }))
        .collect();
    assert_eq!(moved.len(), 2, "each step is taken once");
    for record in &moved {
        assert_eq!(record.who, "rollout");
        let evidence = record.evidence.as_ref().unwrap();
        assert!(evidence["plot"].as_str().unwrap().starts_with("<svg"), "{evidence}");
        assert!(evidence["requests_in_step"].as_u64().unwrap() > 0, "{evidence}");
    }
    a.turn().await.unwrap();
    assert!(a.watched().borrow().is_empty(), "nothing is observed without a rollout");
    assert_eq!(yard.registry.check(true).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_fails_is_taken_back_whoever_decides() {
    let yard = Yard::new().await;
    let (mut a, mut b) = (yard.server("a").await, yard.server("b").await);
    yard.start(&plan()).await;
    // The champion's failures are none, and a tenth of the shadow's answers fail.
    let mut alive = true;
    for second in 0..60 {
        // One dies in the middle, with whatever it had counted and not yet said.
        alive &= second < 3;
        if alive {
            a.turn().await.unwrap();
        }
        b.turn().await.unwrap();
        if yard.ended().await.is_some() {
            break;
        }
        match alive {
            true => yard.second(&[&a, &b], 20, 0.1).await,
            false => yard.second(&[&b], 20, 0.1).await,
        }
    }
    let (outcome, champion, why) = yard.ended().await.expect("it ends within a minute");
    assert_eq!((outcome, champion), (Outcome::RolledBack, 1));
    assert!(why.starts_with("shadows: "), "{why}");
    assert_eq!(yard.traffic().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_rollout_stays_and_still_goes_back() {
    let yard = Yard::new().await;
    let mut a = yard.server("a").await;
    yard.start(&plan()).await;
    yard.registry.pause_rollout("m", true, &By::new("ada")).await.unwrap();
    let before = yard.traffic().await;
    for _ in 0..30 {
        a.turn().await.unwrap();
        yard.second(&[&a], 50, 0.0).await;
    }
    assert_eq!(yard.traffic().await, before);
    for _ in 0..30 {
        a.turn().await.unwrap();
        if yard.ended().await.is_some() {
            break;
        }
        yard.second(&[&a], 50, 0.3).await;
    }
    assert_eq!(yard.ended().await.expect("it goes back").0, Outcome::RolledBack);
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_joined_by_the_server_that_answered_and_counts_once() {
    let yard = Yard::new().await;
    let (mut a, mut b) = (yard.server("a").await, yard.server("b").await);
    let mut plan = plan();
    plan.steps[0].requests = 1_000_000;
    yard.start(&plan).await;
    for server in [&mut a, &mut b] {
        server.turn().await.unwrap();
    }
    let at = yard.clock().now();
    a.observe(&observation(1, 3, at, false, None));
    b.observe(&observation(1, 4, at, false, None));
    let say = async |id: &str, request: &str, body| {
        let (id, request) = (id.to_owned(), request.to_owned());
        yard.registry.give_feedback("m", &[Feedback { id, request, body }]).await.unwrap();
    };
    say("1", "r3", json!({"label": 3})).await;
    say("2", "r4", json!({"label": 9})).await;
    say("3", "nobody's", json!({"label": 1})).await;
    say("4", "from a server that is gone", json!({"right": true, "model_version": "2"})).await;
    for _ in 0..10 {
        yard.pass(1);
        a.turn().await.unwrap();
        b.turn().await.unwrap();
    }
    let rollout = yard.registry.rollout("m").await.unwrap().unwrap();
    let report: Report = serde_json::from_value(rollout.report).unwrap();
    let figures = report.figures(&plan, 2, yard.clock().now());
    assert_eq!(figures["champion"]["labels"], json!({"right": 1, "wrong": 1}), "{figures}");
    assert_eq!(figures["candidate"]["labels"], json!({"right": 1, "wrong": 0}), "{figures}");
    let left = yard.registry.feedback(rollout.number, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(left.iter().map(|(_, f)| &*f.id).collect::<Vec<_>>(), ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_cannot_be_loaded_is_taken_back() {
    let yard = Yard::new().await;
    let mut a = yard.server("a").await;
    yard.start(&plan()).await;
    let broken = Holding {
        model: "m".to_owned(),
        version: "2".to_owned(),
        state: "UNAVAILABLE".to_owned(),
        reason: Some("no engine can run it".to_owned()),
    };
    for _ in 0..30 {
        yard.registry.hold("a", "127.0.0.1:8080", std::slice::from_ref(&broken)).await.unwrap();
        a.turn().await.unwrap();
        if yard.ended().await.is_some() {
            break;
        }
        yard.pass(1);
    }
    let (outcome, _, why) = yard.ended().await.expect("it is given up");
    assert_eq!(outcome, Outcome::RolledBack);
    assert!(why.contains("cannot run on 127.0.0.1:8080: no engine can run it"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_nobody_can_read_is_given_up() {
    let yard = Yard::new().await;
    let mut a = yard.server("a").await;
    let start = Start {
        champion: 1,
        candidates: vec![2],
        plan: json!({"from": "the future"}),
        report: json!({}),
        shares: vec![Share::of(1, 1), Share::shadow(2)],
    };
    yard.registry.start_rollout("m", start, &By::new("ada")).await.unwrap();
    a.turn().await.unwrap();
    let (outcome, _, why) = yard.ended().await.expect("it is given up");
    assert_eq!(outcome, Outcome::RolledBack);
    assert!(why.contains("cannot go on with it"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_follow_the_feedback_until_one_is_the_best() {
    let yard = Yard::new().await;
    let mut a = yard.server("a").await;
    let plan = Plan::parse(
        r#"
        block = "1s"
        settle = "1s"
        [experiment]
        kind = "thompson"
        metric = "clicks"
        time = "30s"
        feedback = 50
        most = "1h"
        every = "5s"
        [guards.metrics.clicks]
        high = 1
        "#,
    )
    .unwrap();
    yard.start_with(&plan, &[2, 3]).await;
    let before = yard.traffic().await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut moved = false;
    for second in 0..300 {
        a.turn().await.unwrap();
        if yard.ended().await.is_some() {
            break;
        }
        let at = yard.clock().now();
        for share in yard.traffic().await.iter().filter(|share| share.share > 0) {
            for i in 0..10 {
                let id = second * 100 + share.version * 10 + i;
                a.observe(&observation(share.version, id, at, false, None));
                // Version 3 is clicked four times as often as the others.
                let clicked = random.f64() < if share.version == 3 { 0.6 } else { 0.15 };
                let body = json!({"metrics": {"clicks": u8::from(clicked)}});
                let feedback = Feedback { id: format!("f{id}"), request: format!("r{id}"), body };
                yard.registry.give_feedback("m", &[feedback]).await.unwrap();
            }
        }
        moved |= yard.traffic().await != before;
        yard.pass(1);
    }
    assert!(moved, "the shares have followed");
    let (outcome, champion, why) = yard.ended().await.expect("it ends within five minutes");
    assert_eq!((outcome, champion), (Outcome::Promoted, 3), "{why}");
}

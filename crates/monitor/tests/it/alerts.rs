//! Alerts, with a clock that the test moves.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use monitor::alerts::{
    Act, Alert, Desk, Engine, Event, Labels, Outcome, Rules, Sample, Sending, Silence, Stage,
    State, Value,
};
use proptest::prelude::*;

const REQUESTS: &str = "modelyard_requests_total";
const FAILURES: &str = "modelyard_rejected_requests_total";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sample(metric: &str, model: &str, value: Value) -> Sample {
    let labels = labels(&[("model", model), ("version", "1")]);
    Sample { metric: metric.to_owned(), labels, value }
}

fn gauge(value: f64) -> Vec<Sample> {
    vec![sample("heat", "m", Value::Gauge(value))]
}

/// Requests by how they ended.
fn ended(requests: f64, failures: f64) -> Vec<Sample> {
    let of = |code: &str, count| {
        let mut sample = sample(REQUESTS, "m", Value::Counter(count));
        sample.labels.insert("code".to_owned(), code.to_owned());
        sample
    };
    // That callers ask for nonsense spends nobody's budget.
    let nonsense = of("INVALID_ARGUMENT", requests);
    vec![of("OK", requests - failures), of("INTERNAL", failures), nonsense]
}

fn counted(requests: f64, failures: f64) -> Vec<Sample> {
    let mut samples = vec![sample(REQUESTS, "m", Value::Counter(requests))];
    if failures > 0.0 {
        samples.push(sample(FAILURES, "m", Value::Counter(failures)));
    }
    samples
}

fn engine(rules: &str) -> Engine {
    let rules = format!("defaults = false\nevery = \"5s\"\n{rules}");
    Engine::new(Rules::parse(&rules).unwrap(), State::default())
}

/// What there is one alert of, and where it is in its life.
fn stage(engine: &Engine) -> Option<Stage> {
    engine.state().alerts.values().next().map(|alert| alert.stage)
}

const HEAT: &str = r#"
[[rules]]
name = "Hot"
metric = "heat"
above = 10
clear = 8
for = "20s"
keep = "10s"
"#;

const HOOK: &str = "[notifiers.hook]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\n";

#[test]
fn it_fires_after_its_time_and_ends_after_it_was_right_for_a_while() {
    let mut engine = engine(HEAT);
    let mut look = |second, value| {
        engine.look(at(second), &gauge(value), &[]);
        stage(&engine)
    };
    assert_eq!(look(0, 9.0), None);
    assert_eq!(look(5, 11.0), Some(Stage::Pending));
    assert_eq!(look(20, 11.0), Some(Stage::Pending));
    // Once right it begins anew.
    assert_eq!(look(22, 10.0), None);
    assert_eq!(look(25, 11.0), Some(Stage::Pending));
    for second in [30, 35, 40] {
        assert_eq!(look(second, 12.0), Some(Stage::Pending), "{second}");
    }
    assert_eq!(look(45, 12.0), Some(Stage::Firing));
    // Below the threshold and above what clears it.
    assert_eq!(look(50, 9.0), Some(Stage::Firing));
    assert_eq!(look(80, 9.0), Some(Stage::Firing));
    assert_eq!(look(85, 7.0), Some(Stage::Firing));
    assert_eq!(look(90, 9.0), Some(Stage::Firing), "wrong again before its time was over");
    assert_eq!(look(95, 7.0), Some(Stage::Firing));
    assert_eq!(look(100, 7.0), Some(Stage::Resolved));
    assert_eq!(look(105, 11.0), Some(Stage::Pending));
}

#[test]
fn a_clock_that_jumps_neither_fires_nor_ends_anything_by_itself() {
    let mut engine = engine(HEAT);
    engine.look(at(0), &gauge(11.0), &[]);
    engine.look(at(86_400), &gauge(11.0), &[]);
    assert_eq!(stage(&engine), Some(Stage::Pending), "a day that nobody watched counts as 15 s");
    engine.look(at(86_405), &gauge(11.0), &[]);
    assert_eq!(stage(&engine), Some(Stage::Firing));
    engine.look(at(100), &gauge(11.0), &[]);
    engine.look(at(105), &gauge(7.0), &[]);
    assert_eq!(stage(&engine), Some(Stage::Firing));
    engine.look(at(110), &gauge(7.0), &[]);
    assert_eq!(stage(&engine), Some(Stage::Resolved));
}

#[test]
fn what_is_gone_is_no_longer_wrong_and_numbers_that_are_none_say_nothing() {
    let mut engine = engine(HEAT);
    for second in (0..60).step_by(5) {
        engine.look(at(second), &gauge(11.0), &[]);
    }
    assert_eq!(stage(&engine), Some(Stage::Firing));
    for second in (60..120).step_by(5) {
        engine.look(at(second), &gauge(f64::NAN), &[]);
    }
    assert_eq!(stage(&engine), Some(Stage::Firing), "nobody knows");
    engine.look(at(120), &[], &[]);
    assert_eq!(stage(&engine), Some(Stage::Resolved), "the model is gone");
}

#[test]
fn ratios_are_of_a_window_and_wait_for_enough_requests() {
    let mut engine = engine(
        r#"
        [[rules]]
        name = "Failures"
        metric = "modelyard_rejected_requests_total"
        per = "modelyard_requests_total"
        window = "1m"
        least = 50
        above = 0.05
        summary = "{model}:{version} fails {value}"
        "#,
    );
    // What was counted before the first look is of another time.
    engine.look(at(0), &counted(1e6, 9e5), &[]);
    engine.look(at(5), &counted(1e6 + 40.0, 9e5 + 20.0), &[]);
    assert_eq!(stage(&engine), None, "40 requests are too few");
    engine.look(at(10), &counted(1e6 + 100.0, 9e5 + 20.0), &[]);
    assert_eq!(stage(&engine), Some(Stage::Firing));
    let alert = engine.state().alerts.values().next().unwrap();
    assert_eq!(alert.value, Some(0.2));
    assert_eq!(alert.summary, "m:1 fails 20.0\u{a0}%");
    for second in (15..=90).step_by(5) {
        let more = 10.0 * second as f64;
        engine.look(at(second), &counted(1e6 + more, 9e5 + 20.0), &[]);
    }
    assert_eq!(stage(&engine), Some(Stage::Resolved), "the window has passed on");
}

#[test]
fn quantiles_are_of_the_window_and_a_rule_that_cannot_be_judged_says_so() {
    let rules = r#"
        [[rules]]
        name = "Slow"
        metric = "latency_seconds"
        quantile = 0.99
        above = 0.1
        [[rules]]
        name = "NoQuantile"
        metric = "latency_seconds"
        above = 0.1
        [[rules]]
        name = "NoHistogram"
        metric = "modelyard_requests_total"
        quantile = 0.5
        above = 1
    "#;
    let mut engine = engine(rules);
    let histogram = |fast: f64, slow: f64| {
        let buckets = vec![(0.05, fast), (0.2, fast + slow), (f64::INFINITY, fast + slow)];
        let mut samples = counted(1.0, 0.0);
        samples.push(sample("latency_seconds", "m", Value::Histogram(buckets)));
        samples
    };
    engine.look(at(0), &histogram(1e6, 0.0), &[]);
    engine.look(at(5), &histogram(1e6 + 999.0, 1.0), &[]);
    assert_eq!(stage(&engine), None);
    engine.look(at(10), &histogram(1e6 + 2000.0, 100.0), &[]);
    assert_eq!(stage(&engine), Some(Stage::Firing));
    let problems: Vec<_> = engine.problems().iter().collect();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].1.contains("no histogram"), "{problems:?}");
    assert!(problems[1].1.contains("needs a `quantile`"), "{problems:?}");
}

#[test]
fn a_budget_that_burns_fires_over_both_times_and_ends_with_the_short_one() {
    let rules = "[[slos]]\nname = \"available\"\nobjective = 0.999\n";
    let mut engine = engine(rules);
    let (mut requests, mut failures, mut fired) = (0.0, 0.0, None);
    for second in (0..7200).step_by(5) {
        requests += 500.0;
        // From the hour on 10 % fail: 100 times as fast as the budget lasts.
        failures += if (3600..4800).contains(&second) { 50.0 } else { 0.0 };
        engine.look(at(second), &ended(requests, failures), &[]);
        let fast = |alert: &&Alert| alert.labels["alertname"] == "available-1h";
        let fast = engine.state().alerts.values().find(fast).map(|alert| alert.stage);
        if fast == Some(Stage::Firing) && fired.is_none() {
            fired = Some(second);
        }
        if second >= 4800 + 320 {
            assert_ne!(fast, Some(Stage::Firing), "{second}: the last five minutes were good");
        }
    }
    // 14.4 times the budget over an hour, at 100 times: after 14.4 % of an hour, and of the thirtieth
    // by which the window may be longer.
    let fired = fired.expect("it fired") - 3600;
    assert!((515..=540).contains(&fired), "{fired}");
}

#[test]
fn two_bad_requests_at_night_burn_nothing_down() {
    let mut engine = engine("[[slos]]\nname = \"available\"\nobjective = 0.999\n");
    engine.look(at(0), &ended(0.0, 0.0), &[]);
    for second in (5..3600).step_by(5) {
        let night = (second / 300) as f64;
        engine.look(at(second), &ended(night, if second > 600 { 2.0 } else { 0.0 }), &[]);
        assert_eq!(stage(&engine), None, "{second}");
    }
}

#[test]
fn an_event_fires_and_is_over_after_a_while_and_orders_come_once() {
    let mut engine = engine(
        r#"
        [[rules]]
        name = "Broken"
        event = "model.broken"
        keep = "30s"
        severity = "critical"
        summary = "{model}: {text}"
        act = ["roll-back", "retrain"]
        "#,
    );
    let event = Event {
        name: "model.broken".to_owned(),
        labels: labels(&[("model", "m"), ("version", "3")]),
        text: "it is broken".to_owned(),
        at: at(0),
    };
    let outcome = engine.look(at(0), &[], std::slice::from_ref(&event));
    let acts: Vec<_> =
        outcome.orders.iter().map(|order| (order.act, order.version.as_deref())).collect();
    assert_eq!(acts, [(Act::RollBack, Some("3")), (Act::Retrain, Some("3"))]);
    assert_eq!(outcome.orders[0].why, "m: it is broken");
    assert!(engine.look(at(5), &[], &[event]).orders.is_empty());
    for second in (10..=35).step_by(5) {
        engine.look(at(second), &[], &[]);
    }
    assert_eq!(stage(&engine), Some(Stage::Resolved));
}

#[test]
fn messages_wait_group_repeat_and_say_what_is_over() {
    let rules = format!(
        "{HOOK}{}{}",
        "[grouping]\nwait = \"10s\"\ninterval = \"1m\"\nrepeat = \"10m\"\n",
        "[[rules]]\nname = \"Hot\"\nmetric = \"heat\"\nabove = 10\nby = [\"model\", \"version\"]\n"
    );
    let mut engine = engine(&rules);
    let heat = |one: f64, two: f64| {
        let second = labels(&[("model", "m"), ("version", "2")]);
        let two = Sample { metric: "heat".into(), labels: second, value: Value::Gauge(two) };
        [gauge(one), vec![two]].concat()
    };
    let mut told = Vec::new();
    let mut look = |second: i64, one, two| {
        let outcome = engine.look(at(second), &heat(one, two), &[]);
        for message in outcome.messages {
            let alerts = message.alerts.iter();
            let text: Vec<String> =
                alerts.map(|a| format!("{} {:?}", a.labels["version"], a.stage)).collect();
            told.push((second, text.join(", ")));
        }
    };
    for second in (0..1500).step_by(5) {
        let one = if second < 900 { 11.0 } else { 1.0 };
        let two = if (5..300).contains(&second) { 11.0 } else { 1.0 };
        look(second, one, two);
    }
    let expected = [(10, "1 Firing, 2 Firing"), (300, "1 Firing, 2 Resolved"), (900, "1 Resolved")];
    let told: Vec<(i64, &str)> = told.iter().map(|(at, text)| (*at, text.as_str())).collect();
    assert_eq!(told, expected);
}

#[test]
fn what_still_fires_is_told_again() {
    let mut engine = engine(&format!("{HOOK}{HEAT}[grouping]\nwait = \"0s\"\nrepeat = \"1h\"\n"));
    let mut told = Vec::new();
    for second in (0..8000).step_by(5) {
        let outcome = engine.look(at(second), &gauge(11.0), &[]);
        told.extend(outcome.messages.iter().map(|_| second));
    }
    assert_eq!(told, [20, 3620, 7220]);
}

#[test]
fn silences_and_inhibition_keep_quiet_and_never_say_that_it_is_over() {
    let rules = format!(
        r#"{HOOK}{HEAT}
        [[rules]]
        name = "Gone"
        metric = "gone"
        above = 0
        severity = "critical"
        [[inhibit]]
        by = {{ alertname = "Gone" }}
        where = {{ alertname = "Hot" }}
        equal = ["model"]
        [grouping]
        wait = "0s"
        interval = "0s"
        "#
    );
    let mut engine = engine(&rules);
    let gone = |value| sample("gone", "m", Value::Gauge(value));
    let names = |outcome: &Outcome| -> Vec<String> {
        let alerts = outcome.messages.iter().flat_map(|message| &message.alerts);
        alerts.map(|alert| format!("{} {:?}", alert.labels["alertname"], alert.stage)).collect()
    };
    for second in (0..30).step_by(5) {
        let both = [gauge(11.0), vec![gone(1.0)]].concat();
        let told = names(&engine.look(at(second), &both, &[]));
        assert!(told.iter().all(|name| name == "Gone Firing"), "{told:?}");
    }
    let quiet = |engine: &Engine| -> Vec<String> {
        let state = engine.state().alerts.values();
        let hot = state.filter(|alert| alert.labels["alertname"] == "Hot");
        hot.flat_map(|alert| alert.quiet.iter().cloned()).collect()
    };
    assert_eq!(quiet(&engine), ["Gone"]);
    let told = names(&engine.look(at(30), &[gauge(11.0), vec![gone(0.0)]].concat(), &[]));
    assert_eq!(told, ["Hot Firing", "Gone Resolved"].map(String::from), "{told:?}");

    let silence = |until, only: &[(&str, &str)]| Silence {
        id: String::new(),
        only: labels(only),
        from: at(0),
        until,
        by: "me".into(),
        why: "known".into(),
    };
    assert!(engine.silence(silence(at(10), &[("model", "m")]), at(31)).is_err(), "it is over");
    assert!(engine.silence(silence(at(100), &[]), at(31)).is_err(), "of nothing");
    let id = engine.silence(silence(at(100), &[("model", "*")]), at(31)).unwrap();
    assert_eq!(quiet(&engine), [id.as_str()]);
    let told = names(&engine.look(at(35), &gauge(11.0), &[]));
    assert!(told.is_empty(), "{told:?}");
    assert!(engine.unsilence(&id, at(36)));
    assert!(!engine.unsilence(&id, at(36)));
    let told = names(&engine.look(at(40), &gauge(11.0), &[]));
    assert_eq!(told, ["Hot Firing"].map(String::from));
}

#[test]
fn routes_choose_who_is_told() {
    let rules = format!(
        "{HOOK}{HEAT}[notifiers.pager]\nkind = \"pagerduty\"\nrouting_key = \"k\"\n
        [[routes]]\nwhere = {{ severity = \"critical\" }}\nto = [\"pager\"]\n
        [[routes]]\nwhere = {{ model = \"quiet*\" }}\nto = []\n
        [[routes]]\nto = [\"hook\"]\n[grouping]\nwait = \"0s\"\n"
    );
    let mut engine = engine(&rules);
    let mut told = Vec::new();
    for second in (0..30).step_by(5) {
        let samples: Vec<Sample> =
            ["m", "quiet-1"].map(|model| sample("heat", model, Value::Gauge(11.0))).into();
        for message in engine.look(at(second), &samples, &[]).messages {
            told.push((message.to, message.group["model"].clone()));
        }
    }
    assert_eq!(told, [("hook".to_owned(), "m".to_owned())]);
}

#[test]
fn after_a_restart_nothing_is_over_before_its_window_was_seen() {
    let rules = r#"
        [[rules]]
        name = "Failures"
        metric = "modelyard_rejected_requests_total"
        window = "1m"
        above = 3
    "#;
    let mut before = engine(rules);
    before.look(at(0), &counted(0.0, 1.0), &[]);
    before.look(at(5), &counted(0.0, 9.0), &[]);
    assert_eq!(stage(&before), Some(Stage::Firing));
    let rules = Rules::parse(&format!("defaults = false\nevery = \"5s\"\n{rules}")).unwrap();
    let mut engine = Engine::new(rules, before.state().clone());
    for second in (10..70).step_by(5) {
        // At first nothing has been counted at all.
        let samples = if second < 30 { Vec::new() } else { counted(0.0, 1.0) };
        engine.look(at(second), &samples, &[]);
        assert_eq!(stage(&engine), Some(Stage::Firing), "{second}");
    }
    for second in [70, 75, 80, 85] {
        engine.look(at(second), &counted(0.0, 1.0), &[]);
    }
    assert_eq!(stage(&engine), Some(Stage::Resolved));
}

#[test]
fn bad_rules_say_what_is_wrong() {
    for (text, expected) in [
        ("[[rules]]\nname = \"a\"", "needs a `metric` or an `event`"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"", "either `above` or `below`"),
        ("[[rules]]\nname = \"a b\"\nmetric = \"m\"\nabove = 1", "`name` has to be"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = nan", "finite"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nclear = 2", "`clear`"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nquantile = 1", "`quantile`"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nfor = \"-1s\"", "`for`"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nfor = \"soon\"", "for"),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nseverity = \"bad\"", "severity"),
        (
            "[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nby = []\nact = [\"roll-back\"]",
            "model",
        ),
        ("[[rules]]\nname = \"a\"\nmetric = \"m\"\nabove = 1\nact = [\"dance\"]", "dance"),
        ("[[rules]]\nname = \"a\"\nevent = \"e\"\nabove = 1", "no threshold"),
        ("[[routes]]\nto = [\"nobody\"]", "nobody"),
        ("[[slos]]\nname = \"a\"\nobjective = 99.9", "objective"),
        ("[notifiers.a]\nkind = \"fax\"", "fax"),
        ("[notifiers.a]\nkind = \"webhook\"\nurl = \"ftp://x\"", "http://"),
        (
            "[notifiers.a]\nkind = \"email\"\nsmtp = \"host\"\nfrom = \"a@b\"\nto = [\"c@d\"]",
            "smtp",
        ),
        ("[notifiers.a]\nkind = \"command\"\ncommand = []", "command"),
        ("every = \"0s\"", "every"),
        ("surprise = 1", "surprise"),
    ] {
        let error = Rules::parse(text).expect_err(text);
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn secrets_are_looked_for_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "hush-file\n").unwrap();
    let text = format!(
        "[notifiers.a]\nkind = \"slack\"\nurl = {{ env = \"HOOK\" }}\n
        [notifiers.b]\nkind = \"pagerduty\"\nrouting_key = {{ file = {file:?} }}\n
        [notifiers.c]\nkind = \"opsgenie\"\napi_key = \"hush-plain\"\n"
    );
    let mut rules = Rules::parse(&text).unwrap();
    let variable = |name: &str| (name == "HOOK").then(|| "http://hush-env/".to_owned());
    for notifier in rules.notifiers.values_mut() {
        notifier.find_secrets(&variable).unwrap();
    }
    let shown = format!("{rules:?} {}", toml::to_string(&rules).unwrap());
    assert!(!shown.contains("hush"), "{shown}");
    let mut engine = Engine::new(rules.clone(), State::default());
    let mut sent = String::new();
    for second in (0..120).step_by(5) {
        let samples = [sample("modelyard_model_ready", "m", Value::Gauge(0.0))];
        for message in engine.look(at(second), &samples, &[]).messages {
            for sending in rules.notifiers[&message.to].sendings(&message, at(second)) {
                let Sending::Post { url, headers, body } = sending else { panic!("all are posts") };
                sent += &format!("{url} {headers:?} {}", String::from_utf8(body).unwrap());
            }
        }
    }
    for secret in ["hush-env", "hush-file", "hush-plain"] {
        assert!(sent.contains(secret), "{secret} is used");
    }
    let mut missing =
        Rules::parse("[notifiers.a]\nkind = \"slack\"\nurl = { env = \"NO\" }").unwrap();
    let error = missing.notifiers.get_mut("a").unwrap().find_secrets(&variable).unwrap_err();
    assert_eq!(error, "$NO is not set");
}

fn desk(rules: &str, file: &Path) -> Desk {
    let rules = format!("defaults = false\n[grouping]\nwait = \"0s\"\ninterval = \"0s\"\n{rules}");
    Desk::open(Rules::parse(&rules).unwrap(), Some(file.to_owned())).unwrap()
}

/// A program that adds its input to a file, unless another file tells it to fail.
fn writes_to(folder: &Path) -> String {
    let (out, broken) = (folder.join("out"), folder.join("broken"));
    let script = format!("test ! -e {broken:?} && cat >> {out:?} && echo >> {out:?}");
    format!("[notifiers.file]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", {script:?}]\n")
}

fn received(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("out")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for something that has to happen.
async fn until(mut happened: impl FnMut() -> bool) {
    let all = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("it happens");
}

#[tokio::test]
async fn a_message_is_kept_until_somebody_takes_it_and_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.json");
    let rules = format!("{}{}", writes_to(folder.path()), HEAT.replace("20s", "0s"));
    std::fs::write(folder.path().join("broken"), "").unwrap();
    let now = Timestamp::now();
    let first = desk(&rules, &file);
    first.look(now, &gauge(11.0), &[]).unwrap();
    let delivering = tokio::spawn({
        let first = first.clone();
        async move { first.deliver().await }
    });
    until(|| first.counts()["file"].failed > 0).await;
    assert_eq!(first.counts()["file"].waiting, 1);
    delivering.abort();
    drop(first);

    std::fs::remove_file(folder.path().join("broken")).unwrap();
    let second = desk(&rules, &file);
    assert_eq!(second.alerts()[0].stage, Stage::Firing);
    // It fires already: there is nothing new to say.
    second.look(now + Duration::from_secs(5), &gauge(11.0), &[]).unwrap();
    let delivering = tokio::spawn({
        let second = second.clone();
        async move { second.deliver().await }
    });
    until(|| second.counts()["file"].sent == 1).await;
    let received = received(folder.path());
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["status"], "firing");
    assert_eq!(received[0]["alerts"][0]["labels"]["alertname"], "Hot");
    delivering.abort();
}

#[tokio::test]
async fn one_that_is_away_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rules = format!(
        "{}[notifiers.away]\nkind = \"webhook\"\nurl = \"http://{free}/\"\n{}",
        writes_to(folder.path()),
        HEAT.replace("20s", "0s")
    );
    let desk = desk(&rules, &folder.path().join("alerts.json"));
    let delivering = tokio::spawn({
        let desk = desk.clone();
        async move { desk.deliver().await }
    });
    let now = Timestamp::now();
    desk.look(now, &gauge(11.0), &[]).unwrap();
    until(|| desk.counts()["file"].sent == 1).await;
    until(|| desk.counts()["away"].failed > 0).await;
    let problem = desk.counts()["away"].problem.clone().unwrap();
    assert!(!problem.contains(&free.to_string()), "an address may be a secret: {problem}");
    delivering.abort();
}

#[test]
fn messages_of_a_group_that_wait_become_one_and_forget_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let rules = format!("{HOOK}{}", HEAT.replace("20s", "0s").replace("10s", "0s"));
    let desk = desk(&rules, &folder.path().join("alerts.json"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = runtime.enter();
    for second in 0..500 {
        let heat = if second % 2 == 0 { 11.0 } else { 1.0 };
        desk.look(at(second * 5), &gauge(heat), &[]).unwrap();
    }
    let count = &desk.counts()["hook"];
    assert_eq!((count.waiting, count.dropped), (2, 0));
}

#[test]
fn a_file_that_cannot_be_read_is_put_aside_and_a_full_disk_is_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alerts.json");
    std::fs::write(&file, "{").unwrap();
    let desk = desk(&HEAT.replace("20s", "0s"), &file);
    assert!(folder.path().join("alerts.broken").exists());
    // A folder in the place of the part makes every write fail.
    std::fs::create_dir(folder.path().join("alerts.part")).unwrap();
    assert!(desk.look(at(0), &gauge(11.0), &[]).is_err());
    assert_eq!(desk.alerts()[0].stage, Stage::Firing);
    std::fs::remove_dir(folder.path().join("alerts.part")).unwrap();
    desk.look(at(5), &gauge(11.0), &[]).unwrap();
    assert!(file.exists(), "what could not be written is written later");
}

proptest! {
    /// Whatever comes, and whatever the clock does: nothing panics, and what fires was wrong.
    #[test]
    fn nothing_fires_that_was_never_wrong(
        steps in prop::collection::vec((-100i64..200, prop::num::f64::ANY, 0u8..4), 1..80),
    ) {
        let mut engine = engine(&format!("{HOOK}{HEAT}"));
        let (mut second, mut was_wrong) = (0, false);
        for (passed, value, kind) in steps {
            second += passed;
            let samples = match kind {
                0 => Vec::new(),
                1 => counted(value.abs(), value),
                _ => gauge(value),
            };
            was_wrong |= kind > 1 && value > 10.0;
            let outcome = engine.look(at(second), &samples, &[]);
            prop_assert!(was_wrong || outcome.messages.is_empty());
            prop_assert!(was_wrong || engine.state().alerts.is_empty());
        }
    }

    /// A state is the same after it was written and read.
    #[test]
    fn a_state_survives(values in prop::collection::vec(0u8..80, 1..40)) {
        let mut engine = engine(&format!("{HOOK}{HEAT}"));
        for (i, value) in values.iter().enumerate() {
            engine.look(at(i as i64 * 5), &gauge(f64::from(*value) / 4.0), &[]);
        }
        let text = serde_json::to_string(engine.state()).unwrap();
        let read: State = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, engine.state());
    }
}

#[test]
fn there_is_one_alert_for_each_of_many_models() {
    let mut engine = engine(
        "[[rules]]\nname = \"F\"\nmetric = \"modelyard_rejected_requests_total\"
        per = \"modelyard_requests_total\"\nabove = 0.5\n",
    );
    let samples = |count: f64| -> Vec<Sample> {
        let one = |i: usize| {
            let model = format!("m{i}");
            let of = |metric| sample(metric, &model, Value::Counter(count));
            [of(REQUESTS), of(FAILURES)]
        };
        (0..2500).flat_map(one).collect()
    };
    engine.look(at(0), &samples(0.0), &[]);
    for i in 1..20 {
        engine.look(at(5 * i), &samples(100.0 * i as f64), &[]);
    }
    // Each alert is there once, and what is kept of the counters does not grow.
    assert_eq!(engine.state().alerts.len(), 2500);
}

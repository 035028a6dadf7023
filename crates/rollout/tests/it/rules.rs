//! What `next` decides.

use rollout::{Action, Plan, Report, next};

use crate::made::{at, begin, block, running, short};

#[test]
fn a_quiet_candidate_climbs_and_is_promoted() {
    let plan = short();
    let mut report = running(&plan);
    for second in (5..60).step_by(5) {
        report.absorb(&plan, &[block(second, (475, 5), (25, 0))]);
    }
    assert_eq!(next(&plan, &report, at(59)), None, "a minute is not over");
    let action = next(&plan, &report, at(60)).unwrap();
    let Action::Move { step: 1, shares, .. } = &action else { panic!("{action:?}") };
    assert_eq!((shares[0].share, shares[1].share), (0, 10_000));
    report.applied(&action, at(60));
    let action = next(&plan, &report, at(61)).unwrap();
    assert!(matches!(action, Action::Promote { version: 2, .. }), "{action:?}");
    report.applied(&action, at(61));
    assert_eq!(next(&plan, &report, at(1000)), None);
}

#[test]
fn a_candidate_that_fails_more_is_taken_back_with_figures() {
    let plan = short();
    let mut report = running(&plan);
    for second in (5..60).step_by(5) {
        report.absorb(&plan, &[block(second, (475, 5), (25, 3))]);
    }
    let action = next(&plan, &report, at(30)).unwrap();
    let Action::RollBack { why, evidence } = action else { panic!("{action:?}") };
    assert!(why.starts_with("errors: version 2 is worse than version 1; 33 of 275"), "{why}");
    let errors = &evidence["guards"][0];
    assert_eq!(errors["guard"], "errors");
    assert_eq!(errors["tripped"], true);
    assert!(errors["odds_ratio"]["lower"].as_f64().unwrap() > 1.0, "{errors}");
}

#[test]
fn a_candidate_without_traffic_is_taken_back_when_time_is_up() {
    let plan = short();
    let report = running(&plan);
    assert_eq!(next(&plan, &report, at(3599)), None);
    let action = next(&plan, &report, at(3600)).unwrap();
    let Action::RollBack { why, .. } = action else { panic!("{action:?}") };
    assert_eq!(why, "5 % of the traffic was not over after 1h: it still lacks 100 requests");
}

#[test]
fn wrong_plans_are_refused_by_the_name_of_the_field() {
    for (text, message) in [
        ("alpha = 0.7", "alpha: expected a probability above 0 and below 0.5"),
        ("alpha = nan", "alpha: expected"),
        ("steps = []", "steps: there are none"),
        ("[[steps]]\nshare = 5\n[[steps]]\nshare = 1", "steps[1].share: shares cannot shrink"),
        ("[[steps]]\nshadow = true", "steps[0].share: a plan cannot end with a shadow"),
        ("[[steps]]\nshare = 5\ntime = \"2h\"\nmost = \"1h\"", "steps[0].most: at most 1h"),
        ("[[steps]]\nshare = 150", "steps[0].share: expected a percentage"),
        ("[guards.errors]\nfactor = 0.5", "guards.errors.factor: expected 1 to 10"),
        ("[guards.metrics.clicks]\nhigh = 0", "guards.metrics.clicks.high"),
        ("[guards.metrics.clicks]", "high"),
        ("block = \"1ms\"", "block: expected 1s to 10m"),
        ("blok = 1", "unknown field"),
    ] {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn a_plan_survives_toml() {
    let plan = Plan::default();
    plan.check().unwrap();
    assert_eq!(Plan::parse(&toml::to_string(&plan).unwrap()).unwrap(), plan);
    assert_eq!(Plan::parse("").unwrap(), plan);
}

#[test]
fn the_versions_are_checked() {
    for candidates in [&[][..], &[2, 3], &[1]] {
        assert!(Report::new(&Plan::default(), 1, candidates, begin()).is_err());
    }
}

//! `modelyard rollout simulate`.

use crate::binary::modelyard;

#[test]
fn a_plan_is_tried_before_anyone_is_hurt() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.toml");
    std::fs::write(&plan, "[[steps]]\nshare = 10\ntime = \"2m\"\n[[steps]]\nshare = 100\n")
        .unwrap();
    let plan = plan.to_str().unwrap();
    let flags = ["rollout", "simulate", plan, "--error-rate", "0.02", "--regression", "0.2"];
    let flags = [&flags[..], &["--rps", "50", "--runs", "10"]].concat();

    let json = modelyard(&[&flags[..], &["--json"]].concat()).ok().json();
    assert_eq!(json["nothing_wrong"]["promoted"], 1.0, "{json}");
    // Two minutes, and a block for the last step.
    assert_eq!(json["nothing_wrong"]["took"]["median"], 125.0, "{json}");
    assert_eq!(json["worse"]["caught"]["ever"], 1.0, "{json}");
    assert_eq!(json["worse"]["steps"][0]["by"]["errors"], 1.0, "{json}");

    let text = modelyard(&flags).ok().stdout;
    assert!(text.contains("promoted in 100 %, taken back in 0 % (alpha allows 1 %)"), "{text}");
    assert!(
        text.contains("fails 22 % instead of 2 % from 10 % on:\n  taken back in 100 %"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    for (flags, message) in [
        (&["--from-step", "6"][..], "--from-step: expected 1 to 5, the steps of the plan, got 6"),
        (&["--rps", "0"][..], "rps: expected 0.01 to 100000 requests a second, got 0"),
        (&["--error-rate", "NaN"][..], "error_rate: expected a part from 0 to 1, got NaN"),
        (&["--runs", "0"][..], "0 is not in 1..=1000000"),
        (&["nowhere.toml"][..], "nowhere.toml"),
    ] {
        let run = modelyard(&[&["rollout", "simulate"][..], flags].concat());
        assert_eq!(run.code, 2, "{flags:?}: {run:?}");
        assert!(run.stderr.contains(message), "{flags:?}: {run:?}");
    }
}

//! Help, completions, exit codes, environment.

use crate::binary::{modelyard, modelyard_with};

const VERBS: [&str; 6] = ["serve", "inspect", "engines", "infer", "bench", "completions"];

#[test]
fn every_verb_has_help_with_examples() {
    for verb in VERBS {
        let help = modelyard(&[verb, "--help"]).ok().stdout;
        assert!(help.contains("Examples:\n  modelyard"), "{verb}: {help}");
        assert!(help.contains("MODELYARD_LOG"), "{verb}: {help}");
    }
    let help = modelyard(&["--help"]).ok().stdout;
    assert!(VERBS.iter().all(|verb| help.contains(verb)), "{help}");
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = modelyard(&["completions", shell]).ok().stdout;
        assert!(VERBS.iter().all(|verb| script.contains(verb)), "{shell}");
    }
    assert_eq!(modelyard(&["completions", "dos"]).code, 2);
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [&["bogus"][..], &[], &["serve"], &["bench"], &["inspect", "--bogus", "x"]] {
        let run = modelyard(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
        assert!(!run.stderr.is_empty());
    }
}

#[test]
fn a_variable_stands_in_for_a_flag_and_the_flag_wins() {
    let broken = [("MODELYARD_LOG", "[")];
    let run = modelyard_with(&["engines"], &broken, b"");
    assert!(run.stderr.contains("the log filter cannot be read"), "{run:?}");
    let run = modelyard_with(&["engines", "--log", "info"], &broken, b"");
    assert!(!run.stderr.contains("the log filter cannot be read"), "{run:?}");
}

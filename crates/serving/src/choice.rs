//! Which version answers a request that names none: plain data, without locks or a clock.

use std::collections::HashMap;

use model::Assigned;
use twox_hash::XxHash64;

/// How a model's traffic is divided among its versions.
///
/// Callers with a key are divided by weighted rendezvous hashing: each version draws a number for
/// the key, scaled by its share, and the smallest wins. A version's draws depend on nothing but the
/// model, the version and the key. So a caller moves only when it must: raising one version's share
/// moves callers to that version and none between the others; and who is the first to get one
/// model's candidate is not for that the first to get another's.
///
/// The draw is `-ln(u) / share`, where `u` is the upper 53 bits of `xxh64(key, seed)` as a fraction
/// between 0 and 1, and `seed` is `xxh64` with seed 0 of the model's name, its length in 8 bytes
/// (little endian) before it, and the version. Every server draws the same.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    parts: Vec<Part>,
    pinned: HashMap<String, usize>,
    total: u64,
    /// From one turn's point to the next one's.
    step: u64,
    /// Who gets what names no version although none has a share.
    last: Option<usize>,
}

#[derive(Debug)]
struct Part {
    share: u32,
    seed: u64,
}

impl Choice {
    /// The choice among a model's versions; results are positions among them.
    pub(crate) fn new<'a>(model: &str, versions: impl IntoIterator<Item = &'a Assigned>) -> Self {
        let mut choice = Self::default();
        for (position, assigned) in versions.into_iter().enumerate() {
            let share = assigned.share;
            choice.parts.push(Part { share, seed: seed(model, &assigned.version) });
            choice.total += u64::from(share);
            if !assigned.shadow {
                choice.last = Some(position);
            }
            for key in &assigned.pinned {
                choice.pinned.entry(key.clone()).or_insert(position);
            }
        }
        choice.step = step(choice.total);
        choice
    }

    /// The version of a caller with a key; `None` if there are only shadows.
    pub(crate) fn of_key(&self, key: &str) -> Option<usize> {
        if let Some(pinned) = self.pinned.get(key) {
            return Some(*pinned);
        }
        if self.total == 0 {
            return self.last;
        }
        let with_share = self.parts.iter().enumerate().filter(|(_, part)| part.share > 0);
        let draw = |(position, part): (usize, &Part)| (draw(part, key), position);
        let smallest = with_share.map(draw).min_by(|one, other| one.0.total_cmp(&other.0));
        smallest.map(|(_, position)| position)
    }

    /// The version whose turn it is; `None` if there are only shadows. Shares are met exactly over
    /// any stretch of turns as long as their sum.
    pub(crate) fn of_turn(&self, turn: u64) -> Option<usize> {
        if self.total == 0 {
            return self.last;
        }
        let mut point = turn.wrapping_mul(self.step) % self.total;
        for (position, part) in self.parts.iter().enumerate() {
            let share = u64::from(part.share);
            if point < share {
                return Some(position);
            }
            point -= share;
        }
        None
    }
}

/// A step of about the golden ratio of the total spreads each version's turns evenly. It must have
/// no divisor in common with the total, or some points would never be reached.
fn step(total: u64) -> u64 {
    let first = (total as f64 * 0.618_033_988_75) as u64;
    (first.max(1)..).find(|step| divisor(*step, total) <= 1).unwrap_or(1)
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

fn seed(model: &str, version: &str) -> u64 {
    let length = (model.len() as u64).to_le_bytes();
    let bytes = [&length[..], model.as_bytes(), version.as_bytes()].concat();
    XxHash64::oneshot(0, &bytes)
}

fn draw(part: &Part, key: &str) -> f64 {
    let hash = XxHash64::oneshot(part.seed, key.as_bytes());
    // Never 0, of which there is no logarithm.
    let fraction = ((hash >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64);
    // Not the platform's own, whose last digit differs from machine to machine.
    -libm::log(fraction) / f64::from(part.share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assigned(version: &str, share: u32) -> Assigned {
        Assigned {
            version: version.into(),
            source: String::new(),
            share,
            shadow: false,
            pinned: Vec::new(),
            settings: Default::default(),
            generation: 0,
        }
    }

    fn shares(model: &str, shares: &[u32]) -> Choice {
        let version = |(number, share): (usize, &u32)| assigned(&number.to_string(), *share);
        let versions: Vec<_> = shares.iter().enumerate().map(version).collect();
        Choice::new(model, &versions)
    }

    fn key(number: usize) -> String {
        format!("user-{number}")
    }

    /// Made by `tests/golden/choice.py`.
    #[test]
    fn every_machine_draws_what_the_reference_draws() {
        for line in
            include_str!("../tests/golden/choice.txt").lines().filter(|line| !line.starts_with('#'))
        {
            let [model, weights, key, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let weights: Vec<u32> = weights.split(',').map(|w| w.parse().unwrap()).collect();
            let chosen = shares(model, &weights).of_key(key);
            assert_eq!(chosen, expected.parse().ok(), "{line}");
        }
    }

    #[test]
    fn a_key_has_no_say_in_another_model() {
        let (one, other) = (shares("one", &[95, 5]), shares("other", &[95, 5]));
        let canaries: Vec<_> =
            (0..20_000).map(key).filter(|key| one.of_key(key) == Some(1)).collect();
        let again = canaries.iter().filter(|key| other.of_key(key) == Some(1)).count();
        // 5 % of about 1000, give or take five standard deviations.
        assert!(again < 90, "{again} of {}", canaries.len());
    }

    #[test]
    fn pins_win_and_shadows_are_chosen_by_their_share_alone() {
        let mut versions = [assigned("1", 99), assigned("2", 0), assigned("3", 0)];
        versions[1].pinned = vec!["tester".into()];
        versions[2].shadow = true;
        let choice = Choice::new("m", &versions);
        assert_eq!(choice.of_key("tester"), Some(1));
        assert!((0..1000).all(|number| choice.of_key(&key(number)) == Some(0)));
        assert!((0..1000).all(|turn| choice.of_turn(turn) == Some(0)));
        versions[2].share = 33;
        let choice = Choice::new("m", &versions);
        let turns = (0..132).filter(|turn| choice.of_turn(*turn) == Some(2)).count();
        assert_eq!(turns, 33);
    }

    #[test]
    fn without_any_share_the_last_that_is_no_shadow_answers() {
        let mut versions = [assigned("1", 0), assigned("2", 0), assigned("3", 0)];
        versions[2].shadow = true;
        let choice = Choice::new("m", &versions);
        assert_eq!((choice.of_key("k"), choice.of_turn(5)), (Some(1), Some(1)));
        let only_shadow = Choice::new("m", &versions[2..]);
        assert_eq!((only_shadow.of_key("k"), only_shadow.of_turn(5)), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shares_are_met_over_many_keys(
            weights in prop::collection::vec(0u32..1000, 1..5), salt in any::<u32>(),
        ) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let choice = shares(&format!("m{salt}"), &weights);
            let keys = 4000;
            let mut counts = vec![0u32; weights.len()];
            for number in 0..keys {
                counts[choice.of_key(&key(number)).unwrap()] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let p = f64::from(*weight) / f64::from(total);
                let deviation = (keys as f64 * p * (1.0 - p)).sqrt();
                let off = (f64::from(*count) - keys as f64 * p).abs();
                prop_assert!(off <= 6.0 * deviation + 1e-9, "{counts:?} {weights:?}");
            }
        }

        #[test]
        fn raising_a_share_moves_callers_only_to_it(
            weights in prop::collection::vec(0u32..100, 2..5),
            raised in 0usize..5, by in 1u32..1000,
        ) {
            let raised = raised % weights.len();
            let mut more = weights.clone();
            more[raised] += by;
            let (before, after) = (shares("m", &weights), shares("m", &more));
            prop_assume!(before.total > 0);
            for number in 0..500 {
                let key = key(number);
                let (old, new) = (before.of_key(&key), after.of_key(&key));
                prop_assert!(new == old || new == Some(raised), "{key}: {old:?} -> {new:?}");
            }
        }

        #[test]
        fn the_steps_of_a_rollout_only_add_callers_to_the_candidate(
            steps in prop::collection::btree_set(0u32..=100, 2..6),
        ) {
            let steps: Vec<u32> = steps.into_iter().collect();
            for pair in steps.windows(2) {
                let choice = |candidate: u32| shares("m", &[100 - candidate, candidate]);
                let (before, after) = (choice(pair[0]), choice(pair[1]));
                for number in 0..300 {
                    let key = key(number);
                    let was_moved = before.of_key(&key) == Some(1);
                    prop_assert!(!was_moved || after.of_key(&key) == Some(1), "{key}");
                }
            }
        }

        #[test]
        fn turns_meet_the_shares_exactly(weights in prop::collection::vec(0u32..60, 1..5)) {
            let choice = shares("m", &weights);
            prop_assume!(choice.total > 0);
            let mut counts = vec![0u32; weights.len()];
            for turn in 0..choice.total {
                counts[choice.of_turn(turn + 7).unwrap()] += 1;
            }
            prop_assert_eq!(counts, weights);
        }
    }
}

//! Made-up traffic.

use jiff::Timestamp;

use super::{Run, Scenario};
use crate::block::{Block, Counts, Shadowed};
use crate::sketch::{Latencies, Predictions, buckets};
use crate::thompson::normal;

/// How a block's traffic is split.
pub(super) struct Mix {
    pub share: f64,
    pub shadow: bool,
    pub worse: bool,
    pub seconds: usize,
}

/// Buckets of latencies that are counted here; 2^30 ns is a second, and 2^40 the last.
const BUCKETS: usize = 641;

/// The places of the table of latencies.
const TABLE: usize = 1 << 14;

/// Made-up traffic. Everything that wanders does so for all versions.
pub(super) struct Traffic {
    scenario: Scenario,
    random: fastrand::Rng,
    /// The bucket of the time to the answer, by rank among [`TABLE`] requests.
    table: Vec<i32>,
    load: f64,
    slow: f64,
    spike: (usize, i32),
    failing: (usize, f64),
    own: [f64; 2],
}

impl Traffic {
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        Self {
            scenario: scenario.clone(),
            random: fastrand::Rng::with_seed(seed),
            table: table(),
            load: 0.0,
            slow: 0.0,
            spike: (0, 0),
            failing: (0, 1.0),
            own: [0.0; 2],
        }
    }

    pub fn block(&mut self, mix: &Mix, start: Timestamp, end: Timestamp, run: &mut Run) -> Block {
        let mut arms = [Arm::new(), Arm::new()];
        let mut shadow = Shadowed::default();
        for _ in 0..mix.seconds {
            self.drift();
            let rate = self.scenario.rps * self.load.exp();
            let requests = poisson(&mut self.random, rate);
            let candidates = binomial(&mut self.random, requests, mix.share);
            let champions = requests - candidates;
            // The answers to callers that a shadow is compared with are the ones that are counted.
            let looks_on = if mix.share >= 1.0 { 1 } else { 0 };
            for (i, count) in [(0, champions), (1, candidates)] {
                let failed =
                    (mix.shadow && i == looks_on).then(|| self.shadow(count, mix, &mut shadow));
                self.serve(i, (count, failed), mix, &mut arms[i], run);
            }
        }
        let [mut champion, mut candidate] = arms.map(Arm::counts);
        if mix.share >= 1.0 {
            // It is the champion that looks on: what the shadow failed alone is what it failed alone.
            std::mem::swap(&mut shadow.shadow_failed, &mut shadow.caller_failed);
            champion.shadow = shadow;
        } else {
            candidate.shadow = shadow;
        }
        let versions = [(1, champion), (2, candidate)];
        let versions = versions.into_iter().filter(|(_, counts)| *counts != Counts::default());
        Block { start, end, versions: versions.collect() }
    }

    /// Lets a second pass.
    fn drift(&mut self) {
        let random = &mut self.random;
        self.load = 0.98 * self.load + 0.06 * normal(random);
        self.slow = 0.9 * self.slow + 0.05 * normal(random);
        self.spike.0 = self.spike.0.saturating_sub(1);
        if self.spike.0 == 0 && random.f64() < 1.0 / 90.0 {
            self.spike = (1 + random.usize(0..4), buckets(1.5 + 6.0 * random.f64()));
        }
        self.failing.0 = self.failing.0.saturating_sub(1);
        if self.failing.0 == 0 && random.f64() < 1.0 / 300.0 {
            self.failing = (1 + random.usize(0..8), 2.0 + 8.0 * random.f64());
        }
        for own in &mut self.own {
            let stalls = random.f64() < self.scenario.own_stalls / 60.0;
            let jitter = self.scenario.own_jitter * normal(random);
            *own = if stalls { 1.5 } else { jitter };
        }
    }

    fn error_rate(&self) -> f64 {
        let factor = if self.failing.0 > 0 { self.failing.1 } else { 1.0 };
        (self.scenario.error_rate * factor).min(1.0)
    }

    /// Answers callers; how many answers fail is drawn, unless it is known already.
    fn serve(
        &mut self,
        i: usize,
        (count, failed): (u64, Option<u64>),
        mix: &Mix,
        arm: &mut Arm,
        run: &mut Run,
    ) {
        let worse = i == 1 && mix.worse;
        let usual = self.error_rate();
        let more = if worse { self.scenario.regression } else { 0.0 };
        let failures = failed
            .unwrap_or_else(|| binomial(&mut self.random, count, (usual + more).clamp(0.0, 1.0)));
        arm.requests += count;
        arm.failures += failures;
        let spike = if self.spike.0 > 0 { self.spike.1 } else { 0 };
        let shared = buckets((self.slow + self.own[i]).exp()) + spike;
        let (factor, tail) = match worse {
            true => (buckets(self.scenario.slower), buckets(self.scenario.slower_tail)),
            false => (0, 0),
        };
        let mut slowed = 0;
        for _ in 0..count - failures {
            let drawn = self.random.u64(..);
            let rank = drawn as usize % TABLE;
            let slowest = rank >= TABLE - TABLE / 50;
            slowed += u64::from(slowest && tail > 0);
            let bucket = self.table[rank] + shared + factor + if slowest { tail } else { 0 };
            arm.latencies[bucket.clamp(0, BUCKETS as i32 - 1) as usize] += 1;
            arm.predictions[(drawn >> 32) as usize % 64] += 1;
        }
        if worse {
            run.exposed += count;
            let slow = self.scenario.slower > 1.0;
            let failed = (failures as f64 * more / (usual + more).max(1e-9)).round() as u64;
            run.hurt += if slow { count } else { failed + slowed };
        }
    }

    /// Both get the same requests; half of the usual failures are the request's, and hit both. Says how
    /// many of the answers to callers failed.
    fn shadow(&mut self, requests: u64, mix: &Mix, shadow: &mut Shadowed) -> u64 {
        let usual = self.error_rate();
        let more = if mix.worse { self.scenario.regression } else { 0.0 };
        let random = &mut self.random;
        let hit_both = binomial(random, requests, usual / 2.0);
        let rest = requests - hit_both;
        // So that each alone fails as often as callers' requests do.
        let alone = (usual / 2.0) / (1.0 - usual / 2.0);
        let candidate = binomial(random, rest, (alone + more).clamp(0.0, 1.0));
        let by_chance = binomial(random, candidate, alone);
        let own = candidate - by_chance;
        let caller = binomial(random, rest - candidate, alone);
        let neither = hit_both + by_chance;
        let both = rest - candidate - caller;
        shadow.neither += neither;
        shadow.shadow_failed += own;
        shadow.caller_failed += caller;
        shadow.both += both;
        shadow.agreed += binomial(random, both, 0.95);
        // At a share of 100 it is the champion that looks on, and the candidate that answers.
        neither + if mix.share >= 1.0 { own } else { caller }
    }
}

/// What one version did, in arrays.
struct Arm {
    requests: u64,
    failures: u64,
    latencies: Vec<u64>,
    predictions: [u64; 64],
}

impl Arm {
    fn new() -> Self {
        Self { requests: 0, failures: 0, latencies: vec![0; BUCKETS], predictions: [0; 64] }
    }

    fn counts(self) -> Counts {
        let mut latencies = Latencies::default();
        let filled = self.latencies.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.for_each(|(bucket, count)| latencies.add_to(bucket as u16, *count));
        let mut predictions = Predictions::default();
        let filled = self.predictions.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.for_each(|(bucket, count)| predictions.add_to(bucket as i16, *count));
        let (requests, failures) = (self.requests, self.failures);
        Counts { requests, failures, latencies, predictions, ..Counts::default() }
    }
}

/// Times to the answer by rank: log-normal around 5 ms with σ = 0.5, and from the 97th percentile on
/// a Pareto tail with index 2.5.
fn table() -> Vec<i32> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut body: Vec<f64> = (0..TABLE).map(|_| 5e6 * (0.5 * normal(&mut random)).exp()).collect();
    body.sort_by(f64::total_cmp);
    let from = TABLE * 97 / 100;
    let limit = body[from];
    for (above, time) in body[from..].iter_mut().enumerate() {
        let beyond = 1.0 - above as f64 / (TABLE - from) as f64;
        *time = limit * beyond.powf(-1.0 / 2.5);
    }
    body.into_iter().map(buckets).collect()
}

/// A draw from a Poisson distribution.
fn poisson(random: &mut fastrand::Rng, mean: f64) -> u64 {
    if mean > 200.0 {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0) as u64;
    }
    let (mut count, limit) = (0, (-mean).exp());
    let mut product = random.f64();
    while product > limit {
        count += 1;
        product *= random.f64();
    }
    count
}

/// A draw from a binomial distribution, by the gaps between successes or, where there are many, by
/// the normal distribution.
fn binomial(random: &mut fastrand::Rng, trials: u64, chance: f64) -> u64 {
    if chance <= 0.0 || trials == 0 {
        return 0;
    }
    if chance >= 1.0 {
        return trials;
    }
    if chance > 0.5 {
        return trials - binomial(random, trials, 1.0 - chance);
    }
    let mean = trials as f64 * chance;
    if mean > 200.0 {
        let drawn = mean + (mean * (1.0 - chance)).sqrt() * normal(random);
        return drawn.round().clamp(0.0, trials as f64) as u64;
    }
    let (mut at, mut successes) = (0.0, 0);
    let log = (-chance).ln_1p();
    loop {
        at += ((1.0 - random.f64()).ln() / log).floor() + 1.0;
        if at > trials as f64 {
            return successes;
        }
        successes += 1;
    }
}

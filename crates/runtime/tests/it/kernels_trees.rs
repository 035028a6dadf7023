//! Every layout of the tree kernels against a naive walk, on ensembles and rows drawn at random;
//! and what the kernels refuse.

use proptest::prelude::*;
use runtime::kernels::trees::{
    Aggregate, Branch, Child, Comparison, Ensemble, Layout, Trees, Weight,
};
use runtime::kernels::{Real, Rows};

const LAYOUTS: [Layout; 4] =
    [Layout::Plain, Layout::LeafBits, Layout::PortableLeafBits, Layout::Descent];

/// Few values, so that rows often equal thresholds, and the ones that are special.
const VALUES: [f64; 12] = [
    f64::NEG_INFINITY,
    -3.4e38,
    -1.0,
    -1e-45,
    -0.0,
    0.0,
    1e-45,
    0.5,
    1.0,
    1.0000001,
    f64::INFINITY,
    f64::NAN,
];

/// Numbers that decide everything about an ensemble.
struct Dice {
    numbers: Vec<u32>,
    next: usize,
}

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let number = self.numbers[self.next % self.numbers.len()];
        self.next += 1;
        // The same numbers again give other rolls.
        (number as usize).wrapping_add(self.next * 7919) % sides
    }
}

#[derive(Clone, Copy, Debug)]
struct Style {
    trees: usize,
    most_leaves: usize,
    features: usize,
    targets: usize,
    only_less_or_equal: bool,
    one_weight: bool,
    aggregate: Aggregate,
}

fn ensemble(style: Style, numbers: Vec<u32>) -> Ensemble {
    let mut dice = Dice { numbers, next: 0 };
    let mut ensemble = Ensemble {
        targets: style.targets,
        aggregate: style.aggregate,
        sets: vec![vec![0.0, 1.0, f64::NAN], vec![-1.0, f64::INFINITY], Vec::new()],
        ..Ensemble::default()
    };
    for tree in 0..style.trees {
        let leaves = 1 + dice.roll(style.most_leaves);
        let root = grow(&mut ensemble, &mut dice, style, (tree, leaves));
        ensemble.roots.push(root);
    }
    ensemble
}

/// A subtree of so many leaves, split unevenly at random.
fn grow(
    ensemble: &mut Ensemble,
    dice: &mut Dice,
    style: Style,
    (tree, leaves): (usize, usize),
) -> Child {
    if leaves == 1 {
        let start = ensemble.weights.len() as u32;
        let value = |dice: &mut Dice| dice.roll(2001) as f64 / 128.0 - 7.0;
        if style.one_weight {
            let target = (tree % style.targets) as u32;
            ensemble.weights.push(Weight { target, value: value(dice) });
        } else {
            for target in 0..style.targets as u32 {
                if style.targets > 3 && dice.roll(4) == 0 {
                    continue;
                }
                ensemble.weights.push(Weight { target, value: value(dice) });
            }
        }
        ensemble.leaves.push(start..ensemble.weights.len() as u32);
        return Child::Leaf(ensemble.leaves.len() as u32 - 1);
    }
    let left = 1 + dice.roll(leaves - 1);
    let if_true = grow(ensemble, dice, style, (tree, left));
    let if_false = grow(ensemble, dice, style, (tree, leaves - left));
    let comparison = match dice.roll(if style.only_less_or_equal { 1 } else { 9 }) {
        0 => Comparison::LessOrEqual,
        1 => Comparison::Less,
        2 => Comparison::GreaterOrEqual,
        3 => Comparison::Greater,
        4 => Comparison::Equal,
        5 => Comparison::NotEqual,
        set => Comparison::Member(set as u32 - 6),
    };
    ensemble.branches.push(Branch {
        feature: dice.roll(style.features) as u32,
        comparison,
        threshold: VALUES[dice.roll(VALUES.len())],
        missing_to_true: dice.roll(3) == 0,
        if_true,
        if_false,
    });
    Child::Branch(ensemble.branches.len() as u32 - 1)
}

/// The specification, word for word.
fn naive<T: Real>(ensemble: &Ensemble, row: &[T]) -> Vec<T> {
    let mut scores: Vec<Option<T>> = vec![None; ensemble.targets];
    for root in &ensemble.roots {
        let mut child = *root;
        let leaf = loop {
            let branch = match child {
                Child::Leaf(leaf) => break leaf,
                Child::Branch(index) => &ensemble.branches[index as usize],
            };
            let x = row[branch.feature as usize].to_f64();
            let rounded = |value: f64| T::from_f64(value).to_f64();
            let t = rounded(branch.threshold);
            let answer = match branch.comparison {
                Comparison::LessOrEqual => x <= t,
                Comparison::Less => x < t,
                Comparison::GreaterOrEqual => x >= t,
                Comparison::Greater => x > t,
                Comparison::Equal => x == t,
                Comparison::NotEqual => x != t,
                Comparison::Member(set) => {
                    ensemble.sets[set as usize].iter().any(|v| rounded(*v) == x)
                }
            };
            let answer = answer || branch.missing_to_true && x.is_nan();
            child = if answer { branch.if_true } else { branch.if_false };
        };
        let range = ensemble.leaves[leaf as usize].clone();
        for weight in &ensemble.weights[range.start as usize..range.end as usize] {
            let value = T::from_f64(weight.value);
            let score = &mut scores[weight.target as usize];
            *score = Some(match (*score, ensemble.aggregate) {
                (None, _) => value,
                (Some(old), Aggregate::Sum | Aggregate::Average) => old + value,
                (Some(old), Aggregate::Min) => {
                    if value < old {
                        value
                    } else {
                        old
                    }
                }
                (Some(old), Aggregate::Max) => {
                    if value > old {
                        value
                    } else {
                        old
                    }
                }
            });
        }
    }
    let count = T::from_f64(ensemble.roots.len() as f64);
    let finish = |score: T| match ensemble.aggregate {
        Aggregate::Average => score / count,
        _ => score,
    };
    scores.iter().map(|score| finish(score.unwrap_or(T::ZERO))).collect()
}

fn agree<T: Real>(ensemble: &Ensemble, rows: &[f64], width: usize) -> Result<(), TestCaseError> {
    let rows: Vec<T> = rows.iter().map(|value| T::from_f64(*value)).collect();
    let table = Rows::new(&rows, width).expect("whole rows");
    let wanted: Vec<f64> = (0..table.count())
        .flat_map(|row| naive(ensemble, table.row(row)))
        .map(Real::to_f64)
        .collect();
    let compiled = Trees::<T>::compile(ensemble).expect("a sound ensemble");
    for layout in LAYOUTS {
        let mut trees = compiled.clone();
        trees.pin(layout);
        for threads in [1, 2] {
            let mut scores = vec![T::ZERO; wanted.len()];
            trees.scores(table, threads, &mut scores).expect("answers");
            let scores: Vec<f64> = scores.iter().map(|score| score.to_f64()).collect();
            prop_assert_eq!(&scores, &wanted, "{:?} of {}", layout, trees.describe());
        }
        // One row alone is another way through the code than the same row among others.
        for row in 0..table.count().min(3) {
            let targets = ensemble.targets;
            let mut scores = vec![T::ZERO; targets];
            let alone = Rows::new(table.row(row), width).expect("a row");
            trees.scores(alone, 1, &mut scores).expect("an answer");
            let scores: Vec<f64> = scores.iter().map(|score| score.to_f64()).collect();
            prop_assert_eq!(&scores[..], &wanted[row * targets..(row + 1) * targets]);
        }
    }
    // What the processor's wider registers compute, and what any processor does: the same bits.
    let bits = |layout: Layout| {
        let mut trees = compiled.clone();
        trees.pin(layout);
        let mut scores = vec![T::ZERO; wanted.len()];
        trees.scores(table, 1, &mut scores).expect("answers");
        scores.iter().map(|score| score.to_f64().to_bits()).collect::<Vec<u64>>()
    };
    prop_assert_eq!(bits(Layout::LeafBits), bits(Layout::PortableLeafBits));
    Ok(())
}

fn styles() -> impl Strategy<Value = Style> {
    let aggregates = prop_oneof![
        4 => Just(Aggregate::Sum),
        1 => Just(Aggregate::Average),
        1 => Just(Aggregate::Min),
        1 => Just(Aggregate::Max),
    ];
    let shape = (1usize..20, prop_oneof![Just(1usize), Just(8), Just(32), Just(90)], 1usize..6);
    let kind = (1usize..5, any::<bool>(), any::<bool>(), aggregates);
    (shape, kind).prop_map(|((trees, most_leaves, features), (targets, less, one, aggregate))| {
        Style {
            trees,
            most_leaves,
            features,
            targets,
            only_less_or_equal: less,
            one_weight: one,
            aggregate,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        rng_seed: proptest::test_runner::RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_layout_answers_as_the_naive_walk(
        style in styles(),
        numbers in prop::collection::vec(any::<u32>(), 300..400),
        picks in prop::collection::vec(0..VALUES.len(), 7..40),
        count in prop_oneof![Just(1usize), Just(7), Just(8), Just(17), Just(300)],
    ) {
        let ensemble = ensemble(style, numbers);
        // One column more than the trees look at.
        let width = style.features + 1;
        let value = |index: usize| VALUES[(picks[index % picks.len()] + index / 11) % VALUES.len()];
        let rows: Vec<f64> = (0..count * width).map(value).collect();
        agree::<f32>(&ensemble, &rows, width)?;
        agree::<f64>(&ensemble, &rows, width)?;
    }
}

/// Two trees: a branch with two leaves, and a leaf alone.
fn sound() -> Ensemble {
    let branch = Branch {
        feature: 1,
        comparison: Comparison::LessOrEqual,
        threshold: 0.5,
        missing_to_true: false,
        if_true: Child::Leaf(0),
        if_false: Child::Leaf(1),
    };
    let weight = |value| Weight { target: 0, value };
    Ensemble {
        roots: vec![Child::Branch(0), Child::Leaf(2)],
        branches: vec![branch],
        leaves: vec![0..1, 1..2, 2..3],
        weights: vec![weight(1.0), weight(2.0), weight(10.0)],
        targets: 1,
        ..Ensemble::default()
    }
}

fn refusal(change: impl FnOnce(&mut Ensemble)) -> String {
    let mut ensemble = sound();
    change(&mut ensemble);
    Trees::<f32>::compile(&ensemble).expect_err("a refusal").to_string()
}

#[test]
fn unsound_ensembles_are_refused() {
    assert!(Trees::<f32>::compile(&sound()).is_ok());
    let leads = |ensemble: &mut Ensemble, child| ensemble.branches[0].if_false = child;
    assert!(refusal(|e| leads(e, Child::Leaf(9))).contains("no leaf 9"));
    assert!(refusal(|e| leads(e, Child::Branch(9))).contains("no node 9"));
    assert!(refusal(|e| leads(e, Child::Branch(0))).contains("in a circle"));
    assert!(refusal(|e| leads(e, Child::Leaf(0))).contains("share it"));
    assert!(refusal(|e| leads(e, Child::Leaf(2))).contains("share it"));
    assert!(refusal(|e| e.roots[1] = Child::Leaf(7)).contains("no leaf 7"));
    assert!(
        refusal(|e| {
            e.roots.pop();
        })
        .contains("no node leads to leaf 2")
    );
    assert!(
        refusal(|e| {
            e.roots.remove(0);
        })
        .contains("no root leads to node 0")
    );
    assert!(refusal(|e| e.weights[0].target = 1).contains("target or class 1"));
    assert!(refusal(|e| e.leaves[0] = 2..9).contains("weights 2..9"));
    assert!(refusal(|e| e.targets = 0).contains("at least one target"));
    assert!(refusal(|e| e.branches[0].comparison = Comparison::Member(0)).contains("set 0"));
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let trees = Trees::<f32>::compile(&sound()).expect("trees");
    let mut scores = [0.0; 2];
    let narrow = Rows::new(&[1.0, 2.0], 1).expect("rows");
    let error = trees.scores(narrow, 1, &mut scores).expect_err("a refusal");
    assert_eq!(error.to_string(), "expected rows of at least 2 values, got rows of 1");
    assert!(Rows::new(&[1.0, 2.0, 3.0], 2).is_err());
    assert!(Rows::<f32>::new(&[], 0).is_err());
    let none = Rows::new(&[], 2).expect("no rows");
    trees.scores(none, 4, &mut []).expect("nothing to do");
    let row = Rows::new(&[0.0, 0.5], 2).expect("a row");
    assert!(trees.scores(row, 1, &mut scores).is_err());
    trees.scores(row, 1, &mut scores[..1]).expect("an answer");
    assert_eq!(scores[0], 11.0);
}

#[test]
fn a_deep_tree_needs_no_deep_stack() {
    let depth = 200_000;
    let link = |index: u32| Branch {
        feature: 0,
        comparison: Comparison::LessOrEqual,
        threshold: f64::from(index),
        missing_to_true: false,
        if_true: Child::Leaf(index),
        if_false: if index + 1 < depth { Child::Branch(index + 1) } else { Child::Leaf(depth) },
    };
    let ensemble = Ensemble {
        roots: vec![Child::Branch(0)],
        branches: (0..depth).map(link).collect(),
        leaves: (0..=depth).map(|leaf| leaf..leaf + 1).collect(),
        weights: (0..=depth).map(|leaf| Weight { target: 0, value: leaf.into() }).collect(),
        targets: 1,
        ..Ensemble::default()
    };
    let trees = Trees::<f64>::compile(&ensemble).expect("trees");
    let mut scores = [0.0; 2];
    let rows = [150_000.0, f64::NAN];
    trees.scores(Rows::new(&rows, 1).expect("rows"), 1, &mut scores).expect("answers");
    assert_eq!(scores, [150_000.0, f64::from(depth)]);
}

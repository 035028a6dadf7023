//! The tabular kernels against golden numbers that ONNX Runtime made (`golden/kernels.py`).

use runtime::kernels::linear::{LinearClassifier, LinearModel, LinearRegressor};
use runtime::kernels::post::PostTransform;
use runtime::kernels::svm::{Kernel, SvmClasses, SvmClassifier, SvmModel, SvmRegressor};
use runtime::kernels::trees::onnx::{NodeArrays, TreeArrays};
use runtime::kernels::trees::{Aggregate, Classifier, Comparison, Ensemble, Regressor};
use runtime::kernels::{Real, Rows};
use serde_json::{Map, Value};

/// One operator, rows, and what ONNX Runtime answers.
struct Case {
    name: String,
    op: String,
    attributes: Map<String, Value>,
    double: bool,
    width: usize,
    rows: Vec<f64>,
    labels: Vec<Value>,
    scores: Vec<f64>,
}

/// Reads a golden file, in which a case only says what differs from the one before it.
fn cases(text: &str) -> Vec<Case> {
    let all: Vec<Map<String, Value>> = serde_json::from_str(text).expect("a list of cases");
    let mut before = Map::new();
    let mut found = Vec::new();
    for mut case in all {
        if before.get("op") == case.get("op") {
            let mut attributes = before["attributes"].as_object().expect("attributes").clone();
            attributes.append(case["attributes"].as_object_mut().expect("attributes"));
            attributes.retain(|_, value| !value.is_null());
            case["attributes"] = attributes.into();
            for key in ["double", "width", "rows"] {
                case.entry(key).or_insert_with(|| before[key].clone());
            }
        }
        before = case.clone();
        let labels = case.get("labels").and_then(Value::as_array).cloned();
        found.push(Case {
            name: case["name"].as_str().expect("a name").to_owned(),
            op: case["op"].as_str().expect("an operator").to_owned(),
            attributes: case["attributes"].as_object().expect("attributes").clone(),
            double: case["double"].as_bool().expect("a flag"),
            width: case["width"].as_u64().expect("a width") as usize,
            rows: numbers(&case["rows"]),
            labels: labels.unwrap_or_default(),
            scores: numbers(&case["scores"]),
        });
    }
    found
}

fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().expect("a number"),
        value => value.as_f64().expect("a number"),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(number).collect()
}

impl Case {
    fn floats(&self, name: &str) -> Vec<f64> {
        self.attributes.get(name).map(numbers).unwrap_or_default()
    }

    fn singles(&self, name: &str) -> Vec<f32> {
        self.floats(name).iter().map(|value| *value as f32).collect()
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        self.floats(name).iter().map(|value| *value as i64).collect()
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.attributes.get(name).and_then(Value::as_i64)
    }

    fn text(&self, name: &str, default: &'static str) -> &str {
        self.attributes.get(name).map_or(default, |value| value.as_str().expect("a text"))
    }

    fn post(&self) -> PostTransform {
        PostTransform::from_name(self.text("post_transform", "NONE")).expect("a transform")
    }

    fn class_labels(&self) -> Vec<Value> {
        ["classlabels_int64s", "classlabels_ints", "classlabels_strings"]
            .iter()
            .find_map(|name| self.attributes.get(*name))
            .map_or_else(Vec::new, |labels| labels.as_array().expect("labels").clone())
    }

    fn rows<T: Real>(&self) -> Vec<T> {
        self.rows.iter().map(|value| T::from_f64(*value)).collect()
    }

    /// The trees of operators of the opsets 1 and 3.
    fn node_ensemble(&self, prefix: &str, targets: usize) -> Ensemble {
        let empty = Vec::new();
        let modes = self.attributes["nodes_modes"].as_array().unwrap_or(&empty);
        let modes: Vec<_> =
            modes.iter().map(|m| Comparison::from_name(m.as_str().expect("a mode"))).collect();
        NodeArrays {
            tree_ids: &self.ints("nodes_treeids"),
            node_ids: &self.ints("nodes_nodeids"),
            feature_ids: &self.ints("nodes_featureids"),
            modes: &modes,
            values: &self.floats("nodes_values"),
            true_ids: &self.ints("nodes_truenodeids"),
            false_ids: &self.ints("nodes_falsenodeids"),
            missing_to_true: &self.ints("nodes_missing_value_tracks_true"),
            weight_tree_ids: &self.ints(&format!("{prefix}_treeids")),
            weight_node_ids: &self.ints(&format!("{prefix}_nodeids")),
            weight_targets: &self.ints(&format!("{prefix}_ids")),
            weights: &self.floats(&format!("{prefix}_weights")),
            targets,
            aggregate: Aggregate::from_name(self.text("aggregate_function", "SUM"))
                .expect("an aggregate"),
        }
        .ensemble()
        .expect("trees")
    }

    /// The trees of the operator of opset 5.
    fn tree_ensemble(&self) -> Ensemble {
        let modes: Vec<u8> = self.ints("nodes_modes").iter().map(|mode| *mode as u8).collect();
        TreeArrays {
            roots: &self.ints("tree_roots"),
            feature_ids: &self.ints("nodes_featureids"),
            modes: &modes,
            splits: &self.floats("nodes_splits"),
            true_ids: &self.ints("nodes_truenodeids"),
            true_leaves: &self.ints("nodes_trueleafs"),
            false_ids: &self.ints("nodes_falsenodeids"),
            false_leaves: &self.ints("nodes_falseleafs"),
            missing_to_true: &[],
            members: &self.floats("membership_values"),
            leaf_targets: &self.ints("leaf_targetids"),
            leaf_weights: &self.floats("leaf_weights"),
            targets: self.int("n_targets").expect("n_targets") as usize,
            aggregate: Aggregate::from_code(self.int("aggregate_function").unwrap_or(1))
                .expect("an aggregate"),
        }
        .ensemble()
        .expect("trees")
    }

    fn linear(&self, outputs: usize) -> LinearModel {
        LinearModel {
            coefficients: self.singles("coefficients"),
            intercepts: self.singles("intercepts"),
            outputs,
            post: self.post(),
        }
    }

    fn svm(&self) -> SvmModel {
        SvmModel {
            kernel: Kernel::from_name(
                self.text("kernel_type", "LINEAR"),
                &self.singles("kernel_params"),
            )
            .expect("a kernel"),
            support_vectors: self.singles("support_vectors"),
            coefficients: self.singles("coefficients"),
            rho: self.singles("rho"),
        }
    }

    /// Our classes (none for a regressor) and scores.
    fn run(&self) -> (Vec<usize>, Vec<f64>) {
        if self.double { self.run_trees::<f64>() } else { self.run_trees::<f32>() }
            .unwrap_or_else(|| self.run_others())
    }

    fn run_trees<T: Real>(&self) -> Option<(Vec<usize>, Vec<f64>)> {
        let data = self.rows::<T>();
        let rows = Rows::new(&data, self.width).expect("whole rows");
        let base = self.floats("base_values");
        let regressor = match self.op.as_str() {
            "TreeEnsembleClassifier" => {
                let classes = self.class_labels().len();
                let ensemble = self.node_ensemble("class", classes);
                let classifier = Classifier::new(&ensemble, &base, self.post()).expect("trees");
                let mut scores = vec![0.0f32; rows.count() * classes];
                let mut found = vec![0; rows.count()];
                classifier.run(rows, 1, &mut found, &mut scores).expect("answers");
                return Some((found, scores.iter().map(|score| (*score).into()).collect()));
            }
            "TreeEnsembleRegressor" => {
                let targets = self.int("n_targets").expect("n_targets") as usize;
                Regressor::new(&self.node_ensemble("target", targets), &base, self.post())
            }
            "TreeEnsemble" => Regressor::new(&self.tree_ensemble(), &[], PostTransform::None),
            _ => return None,
        };
        let regressor = regressor.expect("trees");
        let mut scores = vec![0.0f64; rows.count() * regressor.trees.targets()];
        regressor.run(rows, 1, &mut scores).expect("answers");
        Some((Vec::new(), scores))
    }

    fn run_others(&self) -> (Vec<usize>, Vec<f64>) {
        let data = self.rows::<f32>();
        let rows = Rows::new(&data, self.width).expect("whole rows");
        let labels = self.class_labels().len();
        let mut classes = vec![0; rows.count()];
        let room = |columns: usize| vec![0.0f32; rows.count() * columns];
        let scores = match self.op.as_str() {
            "LinearRegressor" => {
                let outputs = self.int("targets").unwrap_or(1) as usize;
                let regressor = LinearRegressor::new(self.linear(outputs)).expect("a model");
                let mut scores = room(outputs);
                regressor.run(rows, &mut scores).expect("answers");
                classes.clear();
                scores
            }
            "LinearClassifier" => {
                let outputs = self.floats("intercepts").len();
                let classifier =
                    LinearClassifier::new(self.linear(outputs), labels).expect("a model");
                let mut scores = room(classifier.scores());
                classifier.run(rows, &mut classes, &mut scores).expect("answers");
                scores
            }
            "SVMRegressor" => {
                let vectors = self.int("n_supports").unwrap_or(0) as usize;
                let one_class = self.int("one_class").unwrap_or(0) != 0;
                let regressor = SvmRegressor::new(self.svm(), vectors, one_class).expect("a model");
                let mut scores = room(1);
                regressor.run(rows, &mut scores).expect("answers");
                classes.clear();
                scores
            }
            "SVMClassifier" => {
                let per_class = self.ints("vectors_per_class");
                let more = SvmClasses {
                    classes: labels,
                    vectors_per_class: per_class.iter().map(|count| *count as usize).collect(),
                    prob_a: self.singles("prob_a"),
                    prob_b: self.singles("prob_b"),
                    post: self.post(),
                };
                let classifier = SvmClassifier::new(self.svm(), more).expect("a model");
                let mut scores = room(classifier.scores());
                classifier.run(rows, &mut classes, &mut scores).expect("answers");
                scores
            }
            other => panic!("no such operator: {other}"),
        };
        (classes, scores.iter().map(|score| (*score).into()).collect())
    }

    /// What is wrong with our answers, if anything.
    fn verdict(&self) -> Option<String> {
        let (classes, scores) = self.run();
        let labels = self.class_labels();
        for (row, (class, wanted)) in classes.iter().zip(&self.labels).enumerate() {
            let own = match (labels.len(), self.op.as_str()) {
                // With a single label ONNX Runtime answers 0 or 1.
                (1, "TreeEnsembleClassifier") => Value::from(*class),
                _ => labels[*class].clone(),
            };
            if own != *wanted {
                return Some(format!("{}: row {row} is {wanted}, not {own}", self.name));
            }
        }
        let close = |own: f64, wanted: f64| {
            own == wanted
                || own.is_nan() && wanted.is_nan()
                || (own - wanted).abs() <= 1e-5 * wanted.abs().max(1.0)
        };
        let fits = scores.len() == self.scores.len()
            && scores.iter().zip(&self.scores).all(|(own, wanted)| close(*own, *wanted));
        (!fits).then(|| format!("{}: expected {:?}, got {scores:?}", self.name, self.scores))
    }
}

fn check(text: &str, least: usize) {
    let cases = cases(text);
    assert!(cases.len() >= least, "only {} cases", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(Case::verdict).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn trees_by_hand_answer_as_onnxruntime() {
    check(include_str!("../golden/kernels_trees_by_hand.json"), 100);
}

#[test]
fn trained_trees_answer_as_onnxruntime() {
    check(include_str!("../golden/kernels_trees_trained.json"), 10);
}

#[test]
fn linear_models_answer_as_onnxruntime() {
    check(include_str!("../golden/kernels_linear.json"), 25);
}

#[test]
fn support_vector_machines_answer_as_onnxruntime() {
    check(include_str!("../golden/kernels_svm.json"), 50);
}

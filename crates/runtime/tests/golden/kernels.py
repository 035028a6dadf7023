"""Makes small models and their answers by ONNX Runtime: the golden numbers of the tabular kernels.

Run with a Python that has onnx, onnxruntime, scikit-learn, skl2onnx, lightgbm, xgboost and
onnxmltools; writes kernels_*.json beside itself. Each case holds the attributes of one operator,
rows, and what ONNX Runtime answers for them; what a case lacks is as in the one before it, if
that is of the same operator. Numbers that JSON lacks are strings.
"""
import itertools
import json
import math
import pathlib
import warnings

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
DOMAIN = "ai.onnx.ml"
RANDOM = np.random.default_rng(7)


def number(value):
    if isinstance(value, (int, np.integer)):
        return int(value)
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # The shortest decimal number that reads back as the same single-precision one.
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def plain(value):
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value.ravel()]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    return number(value)


def attributes(node):
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.TENSOR:
            value = onnx.numpy_helper.to_array(value)
        elif attribute.type == onnx.AttributeProto.FLOATS:
            value = [np.float32(v) for v in value]
        elif attribute.type == onnx.AttributeProto.FLOAT:
            value = np.float32(value)
        if attribute.name not in ("nodes_hitrates",):
            found[attribute.name] = plain(value)
    return found


def run(node, rows, opset):
    """Runs one operator alone."""
    kind = TensorProto.DOUBLE if rows.dtype == np.float64 else TensorProto.FLOAT
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    if node.op_type.endswith("Classifier"):
        strings = any(a.name == "classlabels_strings" for a in node.attribute)
        label = TensorProto.STRING if strings else TensorProto.INT64
        outputs = [
            helper.make_tensor_value_info(node.output[0], label, None),
            helper.make_tensor_value_info(node.output[1], TensorProto.FLOAT, None),
        ]
    else:
        out = kind if node.op_type == "TreeEnsemble" else TensorProto.FLOAT
        outputs = [helper.make_tensor_value_info(node.output[0], out, None)]
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(node.input[0], kind, [None, rows.shape[1]])], outputs)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, opset)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {node.input[0]: rows})


def case(name, node, rows, opset=3):
    answers = run(node, rows, opset)
    found = {
        "name": name, "op": node.op_type, "attributes": attributes(node),
        "double": rows.dtype == np.float64, "width": rows.shape[1], "rows": plain(rows),
    }
    if len(answers) == 2:
        found["labels"] = plain(answers[0])
    found["scores"] = plain(answers[-1])
    return found


def changed(case, before):
    """What differs from the case before: most cases differ in little. None takes away."""
    if before is None or case["op"] != before["op"]:
        return case
    attributes = {k: v for k, v in case["attributes"].items() if before["attributes"].get(k) != v}
    attributes.update({k: None for k in before["attributes"] if k not in case["attributes"]})
    found = {**case, "attributes": attributes}
    for key in ("double", "width", "rows"):
        if case[key] == before[key]:
            del found[key]
    return found


def write(name, cases):
    cases = [changed(case, before) for case, before in zip(cases, [None, *cases])]
    text = "[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n"
    (HERE / f"kernels_{name}.json").write_text(text)
    print(name, len(cases), "cases", len(text), "bytes")


def node_of(model, kinds):
    [node] = [n for n in model.graph.node if n.op_type in kinds]
    return node


# --- trees -------------------------------------------------------------------------------------

def stumps(weights, modes=("BRANCH_LEQ",), thresholds=(0.0,), missing=None):
    """One tree of one branch for each entry of weights: ([(class, w)…] if true, … if false)."""
    a = {k: [] for k in (
        "nodes_treeids nodes_nodeids nodes_featureids nodes_modes nodes_values nodes_truenodeids "
        "nodes_falsenodeids nodes_missing_value_tracks_true").split()}
    w = {k: [] for k in "treeids nodeids ids weights".split()}
    for tree, sides in enumerate(weights):
        mode = modes[tree % len(modes)]
        for node in range(3):
            a["nodes_treeids"].append(tree)
            a["nodes_nodeids"].append(node)
            a["nodes_featureids"].append(tree % 2)
            a["nodes_modes"].append(mode if node == 0 else "LEAF")
            a["nodes_values"].append(float(thresholds[tree % len(thresholds)]) if node == 0 else 0.0)
            a["nodes_truenodeids"].append(1 if node == 0 else 0)
            a["nodes_falsenodeids"].append(2 if node == 0 else 0)
            a["nodes_missing_value_tracks_true"].append(
                missing[tree % len(missing)] if missing and node == 0 else 0)
        for node, side in enumerate(sides):
            for target, weight in side:
                w["treeids"].append(tree)
                w["nodeids"].append(node + 1)
                w["ids"].append(target)
                w["weights"].append(float(weight))
    if not missing:
        del a["nodes_missing_value_tracks_true"]
    return a, w


def classifier(weights, labels, base=(), post="NONE", strings=False, **more):
    a, w = stumps(weights, **more)
    a.update({"class_" + k: v for k, v in w.items()})
    a["classlabels_strings" if strings else "classlabels_int64s"] = labels
    if base:
        a["base_values"] = list(base)
    return helper.make_node(
        "TreeEnsembleClassifier", ["X"], ["Y", "Z"], domain=DOMAIN, post_transform=post, **a)


def regressor(weights, targets=1, base=(), post="NONE", aggregate="SUM", **more):
    a, w = stumps(weights, **more)
    a.update({"target_" + k: v for k, v in w.items()})
    if base:
        a["base_values"] = list(base)
    return helper.make_node(
        "TreeEnsembleRegressor", ["X"], ["Y"], domain=DOMAIN, post_transform=post,
        aggregate_function=aggregate, n_targets=targets, **a)


POSTS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]
ROWS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)


def two_classes():
    values = {
        "positive": (0.3, 0.6, 0.1, 0.25),
        "mixed": (-0.3, 0.6, 0.1, -0.25),
    }
    for (sign, v), which, base, post in itertools.product(
            values.items(), ("first", "second", "both"), ((), (0.05,), (0.05, 0.1)), POSTS):
        # Where there is one score for two classes, ONNX Runtime leaves the other one of PROBIT
        # unwritten.
        if post == "PROBIT" and (sign == "mixed" or which == "both" or which == "first" and len(base) < 2):
            continue
        if post == "SOFTMAX_ZERO" and base:
            continue
        def side(i):
            if which == "both":
                return [(0, v[i]), (1, v[3 - i])]
            return [(0 if which == "first" else 1, v[i])]
        # With weights for both, ONNX Runtime answers 0 and 1 instead of the labels.
        labels = [0, 1] if which == "both" else [4, 9]
        node = classifier([(side(0), side(1)), (side(2), side(3))], labels, base, post)
        yield case(f"two {which} {sign} base{len(base)} {post}", node, ROWS)


def other_classes():
    v = (0.3, -0.6, 0.1, -0.25)
    for post in POSTS[:4]:
        one = [([(0, v[0])], [(0, v[1])]), ([(0, v[2])], [(0, v[3])])]
        yield case(f"one class {post}", classifier(one, [5], (), post), ROWS)
        three = [([(0, v[0])], [(1, v[1])]), ([(2, v[2])], [(1, v[3]), (2, 0.5)])]
        for base in ((), (0.1, 0.2, -0.4)):
            yield case(f"three classes, not all seen, base{len(base)} {post}",
                       classifier(three, [7, 8, 9], base, post), ROWS)
        ties = [([(0, 0.5), (1, 0.5), (2, 0.1)], [(0, 0.1), (1, 0.7), (2, 0.7)])]
        yield case(f"ties {post}", classifier(ties, ["a", "b", "c"], (), post, True), ROWS)


EDGES = [-math.inf, -1.5, -0.0, 0.0, 1e-45, -1e-45, 1.5, 3e38, math.inf, math.nan]


def comparisons():
    modes = [f"BRANCH_{m}" for m in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")]
    thresholds = [-math.inf, -0.0, 0.0, 1.5, math.inf, math.nan]
    rows = np.array([[v, v] for v in EDGES], np.float32)
    for missing in ([0], [1]):
        weights, all_modes, all_thresholds = [], [], []
        for index, (mode, threshold) in enumerate(itertools.product(modes, thresholds)):
            weights.append(([(index, 1.0)], [(index, 2.0)]))
            all_modes.append(mode)
            all_thresholds.append(threshold)
        for kind in (np.float32, np.float64):
            node = regressor(weights, len(weights), modes=all_modes, thresholds=all_thresholds,
                             missing=missing)
            yield case(f"comparisons missing {missing} {kind.__name__}", node, rows.astype(kind))
        for mode in modes[::5]:
            node = regressor([([(0, 1.0)], [(0, 2.0)])], modes=[mode], thresholds=[1.5], missing=missing)
            yield case(f"{mode} alone missing {missing}", node, rows)


def aggregates():
    v = [RANDOM.normal(size=4).astype(np.float32) for _ in range(5)]
    for aggregate, post in itertools.product(("SUM", "AVERAGE", "MIN", "MAX"), POSTS[:1] + POSTS[2:]):
        if post == "PROBIT":
            v = [np.abs(x) / 20 + 0.01 for x in v]
        one = [([(0, x[0])], [(0, x[1])]) for x in v]
        for base in ((), (0.125,)):
            if post.startswith("SOFTMAX") and base:
                continue
            yield case(f"regressor {aggregate} {post} base{len(base)}",
                       regressor(one, 1, base, post, aggregate), ROWS)
        two = [([(0, x[0])], [(0, x[1]), (1, x[2])]) for x in v]
        yield case(f"two targets {aggregate} {post}",
                   regressor(two, 2, (0.01, 0.02), post, aggregate), ROWS)


def tree_ensemble_5():
    def tensor(name, values, kind):
        return helper.make_tensor(name, kind, (len(values),), values)
    for kind, dtype in ((TensorProto.FLOAT, np.float32), (TensorProto.DOUBLE, np.float64)):
        node = helper.make_node(
            "TreeEnsemble", ["X"], ["Y"], domain=DOMAIN, n_targets=2, aggregate_function=1,
            post_transform=0, tree_roots=[0, 3, 4],
            nodes_featureids=[0, 1, 0, 1, 0],
            nodes_modes=tensor("m", [0, 6, 6, 3, 0], TensorProto.UINT8),
            nodes_splits=tensor("s", [1.5, 0.0, 0.0, 2.5, 0.0], kind),
            nodes_truenodeids=[1, 0, 2, 4, 6], nodes_trueleafs=[0, 1, 1, 1, 1],
            nodes_falsenodeids=[2, 1, 3, 5, 6], nodes_falseleafs=[0, 1, 1, 1, 1],
            membership_values=tensor("v", [1.0, 3.0, math.nan, 2.0, 2.5, 7.0, math.nan], kind),
            leaf_targetids=[0, 1, 0, 1, 0, 0, 1],
            leaf_weights=tensor("w", [1.5, 2.25, -3.0, 4.0, 0.125, 8.0, 0.375], kind))
        rows = np.array([[1, 1], [1, 2], [1, 3], [2, 3], [2.5, 0], [7, 9], [8, 2.5],
                         [math.nan, 3], [0, math.nan]], dtype)
        yield case(f"tree ensemble 5 {dtype.__name__}", node, rows, 5)


def trained_trees():
    import lightgbm
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
    from sklearn.ensemble import (
        ExtraTreesRegressor, GradientBoostingClassifier, GradientBoostingRegressor,
        IsolationForest, RandomForestClassifier)
    from sklearn.tree import DecisionTreeRegressor

    kinds = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
    rounded = lambda x: np.round(x, 2).astype(np.float32)
    iris, species = load_iris(return_X_y=True)
    cancer, sick = load_breast_cancer(return_X_y=True)
    diabetes, progress = load_diabetes(return_X_y=True)
    iris, cancer, diabetes = rounded(iris), rounded(cancer[:, :6]), rounded(diabetes * 10)

    def holes(rows):
        rows = rows.copy()
        rows[RANDOM.random(rows.shape) < 0.2] = np.nan
        return rows

    sk = [
        ("gradient boosting", GradientBoostingClassifier(n_estimators=5, max_depth=3, random_state=0), cancer, sick),
        ("gradient boosting, three classes", GradientBoostingClassifier(n_estimators=3, random_state=0), iris, species),
        ("forest", RandomForestClassifier(5, max_depth=4, random_state=0), cancer, sick),
        ("forest, three classes", RandomForestClassifier(4, random_state=0), iris, species),
        ("regression", GradientBoostingRegressor(n_estimators=4, max_depth=2, random_state=0), diabetes, progress),
        ("deep tree", DecisionTreeRegressor(random_state=0, max_leaf_nodes=60), diabetes, progress),
        ("extra trees, two targets", ExtraTreesRegressor(2, max_leaf_nodes=9, random_state=0), diabetes,
         np.column_stack([progress, -progress])),
    ]
    for name, estimator, x, y in sk:
        estimator.fit(x, y)
        options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
        model = to_onnx(estimator, x[:1], options=options, target_opset={"": 17, DOMAIN: 3})
        yield case(f"sklearn {name}", node_of(model, kinds), x[::31])

    boosted = [
        ("lightgbm binary", lightgbm.LGBMClassifier(n_estimators=5, num_leaves=9, verbose=-1), holes(cancer), sick),
        ("lightgbm multi", lightgbm.LGBMClassifier(n_estimators=2, num_leaves=6, verbose=-1), holes(iris), species),
        ("lightgbm regression", lightgbm.LGBMRegressor(n_estimators=4, num_leaves=40, verbose=-1), holes(diabetes), progress),
    ]
    for name, estimator, x, y in boosted:
        estimator.fit(x, y)
        model = onnxmltools.convert_lightgbm(
            estimator, initial_types=[("X", FloatTensorType([None, x.shape[1]]))], zipmap=False,
            target_opset=15)
        yield case(name, node_of(model, kinds), x[::31])
    boosted = [
        ("xgboost binary", xgboost.XGBClassifier(n_estimators=5, max_depth=3, base_score=0.5), holes(cancer), sick),
        ("xgboost multi", xgboost.XGBClassifier(n_estimators=2, max_depth=3, base_score=0.5), holes(iris), species),
        ("xgboost regression", xgboost.XGBRegressor(n_estimators=4, max_depth=3, base_score=1.0), holes(diabetes), progress),
    ]
    for name, estimator, x, y in boosted:
        estimator.fit(x, y)
        try:
            model = onnxmltools.convert_xgboost(
                estimator, initial_types=[("X", FloatTensorType([None, x.shape[1]]))], target_opset=15)
        except Exception as error:
            print("left out:", name, type(error).__name__, error)
            continue
        yield case(name, node_of(model, kinds), x[::31])


# --- linear models -----------------------------------------------------------------------------

def linear():
    rows = np.round(RANDOM.normal(size=(4, 11)), 2).astype(np.float32)
    for post in POSTS:
        scale = 0.05 if post == "PROBIT" else 1.0
        for outputs in (1, 2, 3):
            factors = np.round(RANDOM.normal(size=outputs * 11) * scale, 3)
            shifts = np.round(RANDOM.normal(size=outputs) * scale, 3)
            if post == "PROBIT":
                shifts = shifts * 0 + 0.5
            yield case(f"regressor {outputs} {post}", helper.make_node(
                "LinearRegressor", ["X"], ["Y"], domain=DOMAIN, coefficients=factors,
                intercepts=shifts, targets=outputs, post_transform=post), rows, 1)
            for labels in (1, 2, 3):
                # ONNX Runtime wants two labels for one output, and leaves half of what it answers
                # unwritten for PROBIT then.
                if labels != max(outputs, 2) or post == "PROBIT" and outputs == 1:
                    continue
                yield case(f"classifier {outputs} outputs {labels} labels {post}", helper.make_node(
                    "LinearClassifier", ["X"], ["Y", "Z"], domain=DOMAIN, coefficients=factors,
                    intercepts=shifts, classlabels_ints=[3, 5, 8][:labels], multi_class=0,
                    post_transform=post), rows, 1)
    yield case("regressor without intercepts", helper.make_node(
        "LinearRegressor", ["X"], ["Y"], domain=DOMAIN, coefficients=np.arange(22) / 8.0,
        targets=2), rows, 1)


# --- support vector machines -------------------------------------------------------------------

def svm():
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.svm import SVC, SVR, OneClassSVM

    x, y = load_iris(return_X_y=True)
    # Large sums that nearly cancel out would show ONNX Runtime's own rounding.
    x = np.round((x - x.mean(0)) / x.std(0), 2).astype(np.float32)[::4]
    y = y[::4]
    far = np.concatenate([x[::5], x[::11] * 2 - 1]).astype(np.float32)
    kinds = ("SVMClassifier", "SVMRegressor")
    kernels = [("linear", {}), ("rbf", {}), ("poly", {"degree": 2, "coef0": 0.5}),
               ("poly", {"degree": 4}), ("sigmoid", {"gamma": 0.01})]
    for kernel, more in kernels:
        for classes, probability in itertools.product((2, 3), (False, True)):
            keep = y < classes
            estimator = SVC(kernel=kernel, C=0.5, probability=probability, random_state=0, **more)
            estimator.fit(x[keep], y[keep])
            model = to_onnx(estimator, x[:1], options={id(estimator): {"zipmap": False}}, target_opset=17)
            yield case(f"SVC {kernel} {classes} classes probability {probability}",
                       node_of(model, kinds), far, 1)
        model = to_onnx(SVR(kernel=kernel, C=0.2, epsilon=0.3, **more).fit(x, y), x[:1], target_opset=17)
        yield case(f"SVR {kernel}", node_of(model, kinds), far, 1)
    model = to_onnx(OneClassSVM(kernel="rbf", nu=0.3).fit(x), x[:1], target_opset=17)
    yield case("one class", node_of(model, kinds), far, 1)
    node = node_of(to_onnx(SVC(kernel="rbf").fit(x, y), x[:1], target_opset=17), kinds)
    pair = node_of(to_onnx(SVC(kernel="rbf").fit(x[y < 2], y[y < 2]), x[:1], target_opset=17), kinds)
    for post in POSTS[1:4]:
        for name, base in (("three", node), ("two", pair)):
            changed = onnx.NodeProto.FromString(base.SerializeToString())
            for attribute in changed.attribute:
                if attribute.name == "post_transform":
                    attribute.s = post.encode()
            yield case(f"SVC {name} classes {post}", changed, far, 1)
    for classes, sign, post in itertools.product((1, 2, 3), (1, -1), POSTS[:4]):
        factors = np.round(np.abs(RANDOM.normal(size=classes * 4)) / 4, 3)
        factors[::2] *= sign
        yield case(f"linear {classes} classes {sign} {post}", helper.make_node(
            "SVMClassifier", ["X"], ["Y", "Z"], domain=DOMAIN, kernel_type="LINEAR",
            kernel_params=[0.0, 0.0, 3.0], coefficients=factors, rho=[-0.2],
            classlabels_ints=[3, 5, 8][:classes], post_transform=post), far, 1)
    yield case("linear regressor", helper.make_node(
        "SVMRegressor", ["X"], ["Y"], domain=DOMAIN, kernel_type="LINEAR",
        kernel_params=[0.0, 0.0, 3.0], coefficients=[0.5, -0.25, 1.0, 2.0], rho=[0.125],
        n_supports=0), far, 1)


if __name__ == "__main__":
    write("trees_by_hand", [*two_classes(), *other_classes(), *comparisons(), *aggregates(), *tree_ensemble_5()])
    write("trees_trained", list(trained_trees()))
    write("linear", list(linear()))
    write("svm", list(svm()))

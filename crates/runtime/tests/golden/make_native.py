"""Makes small models of scikit-learn, LightGBM and XGBoost with ONNX Runtime's answers.

    python make_native.py [PART…]

The parts are the functions that `PARTS` names; what other parts made stays. Writes `native/NAME.onnx` beside this script, and `native/answers.json`: for each model its inputs
and the outputs that ONNX Runtime gives. `tests/it/native_goldens.rs` holds the native engine to
them. Versions: see `answers.json`.
"""

import json
import pathlib
import sys
import warnings

import lightgbm
import numpy
import onnx
import onnxmltools
import onnxruntime
import skl2onnx
import sklearn
import xgboost
from lightgbm import LGBMClassifier, LGBMRegressor
from onnx import TensorProto, helper
from onnxmltools.convert.common.data_types import FloatTensorType as MlFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    DictionaryType,
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    LocalOutlierFactor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent / "native"
ROWS = 12
answers = {}
failed = {}

iris_x, iris_y = load_iris(return_X_y=True)
cancer_x, cancer_y = load_breast_cancer(return_X_y=True)
cancer_x = cancer_x[:, :8]
sugar_x, sugar_y = load_diabetes(return_X_y=True)
iris_x, cancer_x, sugar_x = (x.astype(numpy.float32) for x in (iris_x, cancer_x, sugar_x))
iris_names = numpy.array(["setosa", "versicolor", "virginica"])[iris_y]


def pick(x):
    """Rows from all over the data, a little off what was trained on."""
    chosen = x[:: max(1, len(x) // ROWS)][:ROWS].copy()
    chosen[1::2] *= numpy.float32(1.03125)
    return chosen


def value(array):
    array = numpy.asarray(array)
    kinds = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}
    if array.dtype.kind in "OU":
        return {"type": "BYTES", "shape": array.shape, "data": [str(s) for s in array.ravel()]}
    if array.dtype.name.startswith("float"):
        # As strings: JSON has no NaN.
        data = [repr(float(v)) for v in array.ravel()]
    else:
        data = [int(v) for v in array.ravel()]
    return {"type": kinds[array.dtype.name], "shape": array.shape, "data": data}


def record(name, model, inputs):
    model.ir_version = min(model.ir_version, 10)
    del model.metadata_props[:]
    model.doc_string = ""
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    outputs = session.run(None, inputs)
    (HERE / f"{name}.onnx").write_bytes(data)
    answers[name] = {
        "inputs": {key: value(array) for key, array in inputs.items()},
        "outputs": {
            info.name: value(array) for info, array in zip(session.get_outputs(), outputs)
        },
    }


def sklearn_model(name, estimator, x, y=None, cast=numpy.float32, opset=17, **options):
    try:
        estimator.fit(x, y)
        is_classifier = hasattr(estimator, "predict_proba") or hasattr(estimator, "classes_")
        if is_classifier and "options" not in options:
            options["options"] = {id(estimator): {"zipmap": False}}
        rows = pick(x).astype(cast)
        model = to_onnx(estimator, rows[:1], target_opset={"": opset, "ai.onnx.ml": 3}, **options)
        record(name, model, {"X": rows})
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {str(error)[:150]}"


def boosted(name, estimator, x, y, convert, **options):
    try:
        estimator.fit(x, y)
        model = convert(
            estimator, initial_types=[("X", MlFloat([None, x.shape[1]]))], target_opset=15, **options
        )
        record(name, model, {"X": pick(x)})
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {str(error)[:150]}"


def classifiers():
    sklearn_model("logistic_binary", LogisticRegression(max_iter=500), cancer_x, cancer_y)
    sklearn_model("logistic_multi", LogisticRegression(max_iter=500), iris_x, iris_y)
    sklearn_model("logistic_strings", LogisticRegression(max_iter=500), iris_x, iris_names)
    sklearn_model("logistic_ovr", OneVsRestClassifier(LogisticRegression()), iris_x, iris_y)
    sklearn_model("logistic_double", LogisticRegression(max_iter=500), iris_x, iris_y, cast=numpy.float64)
    sklearn_model("linear_svc", LinearSVC(), iris_x, iris_y)
    sklearn_model("linear_svc_binary", LinearSVC(), cancer_x, cancer_y)
    sklearn_model("svc_rbf_probability", SVC(probability=True, random_state=0), iris_x, iris_y)
    sklearn_model("svc_poly", SVC(kernel="poly"), iris_x, iris_y)
    sklearn_model("svc_sigmoid", SVC(kernel="sigmoid"), iris_x, iris_names)
    sklearn_model("svc_binary", SVC(probability=True, random_state=0), cancer_x[:150], cancer_y[:150])
    sklearn_model("svc_binary_raw", SVC(), cancer_x[:150], cancer_y[:150])
    sklearn_model("nu_svc", NuSVC(kernel="linear"), iris_x, iris_y)
    sklearn_model("ridge_classifier", RidgeClassifier(), iris_x, iris_y)
    sklearn_model("sgd_log", SGDClassifier(loss="log_loss", random_state=0), iris_x, iris_y)
    sklearn_model("sgd_hinge", SGDClassifier(random_state=0), iris_x, iris_y)
    sklearn_model("forest", RandomForestClassifier(8, max_depth=4, random_state=0), iris_x, iris_y)
    sklearn_model("forest_strings", RandomForestClassifier(8, max_depth=4, random_state=0), iris_x, iris_names)
    sklearn_model("forest_double", RandomForestClassifier(8, max_depth=4, random_state=0), iris_x, iris_y, cast=numpy.float64)
    sklearn_model("extra_trees", ExtraTreesClassifier(8, max_depth=4, random_state=0), cancer_x, cancer_y)
    sklearn_model("tree", DecisionTreeClassifier(max_depth=4, random_state=0), iris_x, iris_y)
    sklearn_model("boosting", GradientBoostingClassifier(n_estimators=8, random_state=0), iris_x, iris_y)
    sklearn_model("boosting_binary", GradientBoostingClassifier(n_estimators=8, random_state=0), cancer_x, cancer_y)
    sklearn_model("hist_boosting", HistGradientBoostingClassifier(max_iter=6), iris_x, iris_y)
    sklearn_model("hist_boosting_binary", HistGradientBoostingClassifier(max_iter=6), cancer_x, cancer_y)
    sklearn_model("ada_boost", AdaBoostClassifier(n_estimators=5, random_state=0), iris_x, iris_y)
    sklearn_model("bagging", BaggingClassifier(n_estimators=4, random_state=0), iris_x, iris_y)
    sklearn_model("naive_bayes_gaussian", GaussianNB(), iris_x, iris_y)
    sklearn_model("naive_bayes_bernoulli", BernoulliNB(), iris_x, iris_y)
    sklearn_model("naive_bayes_multinomial", MultinomialNB(), iris_x, iris_y)
    sklearn_model("naive_bayes_complement", ComplementNB(), iris_x, iris_y)
    sklearn_model("mlp", MLPClassifier((10,), max_iter=200, random_state=0), iris_x, iris_y)
    sklearn_model("mlp_binary", MLPClassifier((10,), activation="tanh", max_iter=200, random_state=0), cancer_x, cancer_y)
    sklearn_model("lda", LinearDiscriminantAnalysis(), iris_x, iris_y)
    sklearn_model("qda", QuadraticDiscriminantAnalysis(), iris_x, iris_y)
    sklearn_model("calibrated", CalibratedClassifierCV(LinearSVC(), cv=2), iris_x, iris_y)
    sklearn_model("voting", VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], voting="soft"), iris_x, iris_y)
    sklearn_model("stacking", StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], cv=2), iris_x, iris_y)
    sklearn_model("neighbours", KNeighborsClassifier(3), iris_x[::4], iris_y[::4])


def regressors():
    sklearn_model("linear_regression", LinearRegression(), sugar_x, sugar_y)
    sklearn_model("linear_regression_double", LinearRegression(), sugar_x, sugar_y, cast=numpy.float64)
    sklearn_model("linear_regression_two", LinearRegression(), iris_x[:, :2], iris_x[:, 2:])
    sklearn_model("ridge", Ridge(), sugar_x, sugar_y)
    sklearn_model("lasso", Lasso(), sugar_x, sugar_y)
    sklearn_model("poisson", PoissonRegressor(), sugar_x, sugar_y)
    sklearn_model("svr", SVR(), sugar_x[:80], sugar_y[:80])
    sklearn_model("nu_svr_linear", NuSVR(kernel="linear"), sugar_x[:80], sugar_y[:80])
    sklearn_model("linear_svr", LinearSVR(), sugar_x, sugar_y)
    sklearn_model("forest_regression", RandomForestRegressor(5, max_depth=4, random_state=0), sugar_x, sugar_y)
    sklearn_model("forest_regression_double", RandomForestRegressor(5, max_depth=4, random_state=0), sugar_x, sugar_y, cast=numpy.float64)
    sklearn_model("forest_regression_two", RandomForestRegressor(5, max_depth=4, random_state=0), iris_x[:, :2], iris_x[:, 2:])
    sklearn_model("extra_trees_regression", ExtraTreesRegressor(5, max_depth=4, random_state=0), sugar_x, sugar_y)
    sklearn_model("tree_regression", DecisionTreeRegressor(max_depth=4), sugar_x, sugar_y)
    sklearn_model("boosting_regression", GradientBoostingRegressor(n_estimators=10), sugar_x, sugar_y)
    sklearn_model("hist_boosting_regression", HistGradientBoostingRegressor(max_iter=6), sugar_x, sugar_y)
    sklearn_model("mlp_regression", MLPRegressor((10,), max_iter=300, random_state=0), sugar_x, sugar_y)
    sklearn_model("voting_regression", VotingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3))]), sugar_x, sugar_y)
    sklearn_model("neighbours_regression", KNeighborsRegressor(3), sugar_x[::10], sugar_y[::10])
    sklearn_model("one_class_svm", OneClassSVM(nu=0.2), iris_x)
    sklearn_model("isolation_forest", IsolationForest(n_estimators=4, max_samples=16, random_state=0), iris_x)


def transformers():
    for name, step in {
        "standard": StandardScaler(),
        "min_max": MinMaxScaler(clip=True),
        "max_abs": MaxAbsScaler(),
        "robust": RobustScaler(),
        "l1": Normalizer("l1"),
        "l2": Normalizer("l2"),
        "max": Normalizer("max"),
        "binarizer": Binarizer(threshold=2.5),
        "bins": KBinsDiscretizer(4, encode="ordinal", strategy="uniform"),
        "bins_one_hot": KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"),
        "polynomial": PolynomialFeatures(2),
        "power": PowerTransformer(),
        "pca": PCA(2),
        "svd": TruncatedSVD(2),
        "k_means": KMeans(3, n_init=1, random_state=0),
        "mixture": GaussianMixture(2, random_state=0),
    }.items():
        sklearn_model(f"transform_{name}", step, iris_x)
    sklearn_model("transform_select", make_pipeline(SelectKBest(k=2), StandardScaler()), iris_x, iris_y)
    holes = iris_x.copy()
    holes[::5, 1] = numpy.nan
    sklearn_model("imputer", make_pipeline(SimpleImputer(), StandardScaler()), holes)
    sklearn_model("imputer_forest", make_pipeline(SimpleImputer(strategy="median"), RandomForestClassifier(4, max_depth=3, random_state=0)), holes, iris_y, options={"zipmap": False})
    sklearn_model("hist_boosting_missing", HistGradientBoostingClassifier(max_iter=6), holes, iris_y)


def tables():
    """Columns of strings and numbers, as most tabular models have them."""
    import pandas

    colours = numpy.array(["red", "green", "blue"])
    table = pandas.DataFrame(
        {
            "length": iris_x[:, 0],
            "width": iris_x[:, 1],
            "colour": colours[(numpy.arange(150) * 7) % 3],
            "size": numpy.array(["s", "m", "l", "xl"])[(numpy.arange(150) * 5) % 4],
            "count": ((numpy.arange(150) * 11) % 6).astype(numpy.int64),
        }
    )
    types = [
        ("length", FloatTensorType([None, 1])),
        ("width", FloatTensorType([None, 1])),
        ("colour", StringTensorType([None, 1])),
        ("size", StringTensorType([None, 1])),
        ("count", Int64TensorType([None, 1])),
    ]
    rows = table.iloc[:: 150 // ROWS][:ROWS]
    inputs = {name: rows[[name]].to_numpy() for name, _ in types}
    inputs["length"] = inputs["length"].astype(numpy.float32)
    inputs["width"] = inputs["width"].astype(numpy.float32)
    unknown = {k: v.copy() for k, v in inputs.items()}
    unknown["colour"][3] = "mauve"
    for name, text, last, given in (
        ("table_logistic", OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=500), unknown),
        ("table_ordinal", OrdinalEncoder(), RandomForestClassifier(4, max_depth=3, random_state=0), inputs),
        ("table_boosting", OneHotEncoder(handle_unknown="ignore", sparse_output=False), GradientBoostingClassifier(n_estimators=4), unknown),
    ):
        try:
            numbers = make_pipeline(SimpleImputer(), StandardScaler())
            columns = ColumnTransformer(
                [
                    ("numbers", numbers, ["length", "width"]),
                    ("text", text, ["colour", "size"]),
                    ("whole", "passthrough", ["count"]),
                ]
            )
            model = make_pipeline(columns, last).fit(table, iris_names)
            proto = to_onnx(model, initial_types=types, target_opset={"": 17, "ai.onnx.ml": 3}, options={"zipmap": False})
            record(name, proto, given)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error)[:150]}"


def boosters():
    light = onnxmltools.convert_lightgbm
    extreme = onnxmltools.convert_xgboost
    quiet = {"verbose": -1, "n_estimators": 6, "max_depth": 4}
    boosted("lightgbm_binary", LGBMClassifier(**quiet), cancer_x, cancer_y, light, zipmap=False)
    boosted("lightgbm_multi", LGBMClassifier(**quiet), iris_x, iris_y, light, zipmap=False)
    boosted("lightgbm_forest", LGBMClassifier(boosting_type="rf", bagging_freq=1, bagging_fraction=0.6, **quiet), cancer_x, cancer_y, light, zipmap=False)
    boosted("lightgbm_regression", LGBMRegressor(**quiet), sugar_x, sugar_y, light)
    boosted("lightgbm_poisson", LGBMRegressor(objective="poisson", **quiet), sugar_x, sugar_y, light)
    holes = cancer_x.copy()
    holes[::3, 2] = numpy.nan
    boosted("lightgbm_missing", LGBMClassifier(**quiet), holes, cancer_y, light, zipmap=False)
    small = {"n_estimators": 6, "max_depth": 3}
    boosted("xgboost_binary", XGBClassifier(**small), cancer_x, cancer_y, extreme)
    boosted("xgboost_multi", XGBClassifier(**small), iris_x, iris_y, extreme)
    boosted("xgboost_regression", XGBRegressor(**small), sugar_x, sugar_y, extreme)
    boosted("xgboost_logistic", XGBRegressor(objective="reg:logistic", **small), cancer_x, cancer_y, extreme)
    boosted("xgboost_poisson", XGBRegressor(objective="count:poisson", **small), sugar_x, sugar_y, extreme)
    boosted("xgboost_missing", XGBClassifier(**small), holes, cancer_y, extreme)


def single(name, operator, inputs, outputs, domain="ai.onnx.ml", ml=3, opset=17, **attributes):
    """One operator by itself, for what exporters seldom write."""
    code = {
        "float32": TensorProto.FLOAT,
        "float64": TensorProto.DOUBLE,
        "int64": TensorProto.INT64,
        "int32": TensorProto.INT32,
        "bool": TensorProto.BOOL,
        "object": TensorProto.STRING,
    }
    try:
        node = helper.make_node(
            operator, list(inputs), [f"out{i}" for i in range(len(outputs))], domain=domain, **attributes
        )
        graph = helper.make_graph(
            [node],
            "single",
            [helper.make_tensor_value_info(k, code[v.dtype.name], v.shape) for k, v in inputs.items()],
            [helper.make_tensor_value_info(f"out{i}", code[kind], None) for i, kind in enumerate(outputs)],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
        model = helper.make_model(graph, opset_imports=opsets)
        record(f"single_{name}", model, inputs)
    except Exception as error:
        failed[f"single_{name}"] = f"{type(error).__name__}: {str(error)[:200]}"


def singles():
    f = lambda *v, shape=None: numpy.array(v, numpy.float32).reshape(shape or (-1, len(v)))
    text = lambda *v: numpy.array(v, object)
    ints = lambda *v: numpy.array(v, numpy.int64)
    x = f(1, -2, 0, 4, 5, 6, 0, 0, 0, -1, -2, -3, shape=(4, 3))
    nan = numpy.float32("nan")
    single("scaler", "Scaler", {"X": x}, ["float32"], offset=[1.0, 2.0, 3.0], scale=[0.5, 2.0, 1.0])
    single("scaler_one", "Scaler", {"X": x}, ["float32"], offset=[1.0], scale=[0.5])
    single("scaler_int", "Scaler", {"X": x.astype(numpy.int64)}, ["float32"], offset=[1.0], scale=[0.5])
    single("scaler_double", "Scaler", {"X": x.astype(numpy.float64)}, ["float32"], offset=[1.0], scale=[0.5])
    single("scaler_row", "Scaler", {"X": x[0]}, ["float32"], offset=[1.0, 2.0, 3.0], scale=[0.5, 2.0, 1.0])
    for norm in ("MAX", "L1", "L2"):
        single(f"normalizer_{norm}", "Normalizer", {"X": x}, ["float32"], norm=norm)
        single(f"normalizer_row_{norm}", "Normalizer", {"X": x[0]}, ["float32"], norm=norm)
        single(f"normalizer_int_{norm}", "Normalizer", {"X": x.astype(numpy.int64)}, ["float32"], norm=norm)
    single("binarizer", "Binarizer", {"X": x}, ["float32"], threshold=0.5)
    holes = f(1, nan, 3, nan, 5, 6, shape=(2, 3))
    single("imputer_nan", "Imputer", {"X": holes}, ["float32"], imputed_value_floats=[7.0, 8.0, 9.0], replaced_value_float=float("nan"))
    single("imputer_zero", "Imputer", {"X": x}, ["float32"], imputed_value_floats=[7.5], replaced_value_float=0.0)
    single("imputer_int", "Imputer", {"X": x.astype(numpy.int64)}, ["int64"], imputed_value_int64s=[7], replaced_value_int64=0)
    single("one_hot_int", "OneHotEncoder", {"X": ints(1, 3, 9, 2)}, ["float32"], cats_int64s=[1, 2, 3])
    single("one_hot_float", "OneHotEncoder", {"X": f(1.7, 3, 9, 2, shape=(4, 1))}, ["float32"], cats_int64s=[1, 2, 3])
    single("one_hot_text", "OneHotEncoder", {"X": text("a", "c", "z").reshape(3, 1)}, ["float32"], cats_strings=["a", "b", "c"])
    single("label_v1_text", "LabelEncoder", {"X": text("b", "a", "z")}, ["int64"], ml=1, classes_strings=["a", "b"])
    single("label_v1_int", "LabelEncoder", {"X": ints(1, 0, 5)}, ["object"], ml=1, classes_strings=["a", "b"], default_string="none")
    single("label_text_int", "LabelEncoder", {"X": text("b", "a", "z")}, ["int64"], keys_strings=["a", "b"], values_int64s=[10, 20], default_int64=-7)
    single("label_int_text", "LabelEncoder", {"X": ints(1, 2, 3)}, ["object"], keys_int64s=[1, 2], values_strings=["a", "b"])
    single("label_float_text", "LabelEncoder", {"X": f(1, nan, 3, -0.0, shape=(4,))}, ["object"], keys_floats=[1.0, float("nan"), 0.0], values_strings=["a", "b", "c"])
    single("label_int_float", "LabelEncoder", {"X": ints(1, 2, 3)}, ["float32"], keys_int64s=[1, 2], values_floats=[0.5, 1.5], default_float=-1.0)
    single("label_text_text", "LabelEncoder", {"X": text("b", "a", "z").reshape(3, 1)}, ["object"], keys_strings=["a", "b"], values_strings=["x", "y"], default_string="?")
    tensor = lambda name, kind, values: helper.make_tensor(name, kind, [len(values)], values)
    single("label_double", "LabelEncoder", {"X": numpy.array([0.1, 0.5])}, ["float64"], ml=4, keys_tensor=tensor("k", TensorProto.DOUBLE, [0.1]), values_tensor=tensor("v", TensorProto.DOUBLE, [7.25]), default_tensor=tensor("d", TensorProto.DOUBLE, [-1.0]))
    single("label_tensor_text", "LabelEncoder", {"X": text("b", "a", "z")}, ["int64"], ml=4, keys_tensor=tensor("k", TensorProto.STRING, [b"a", b"b"]), values_tensor=tensor("v", TensorProto.INT64, [3, 4]), default_tensor=tensor("d", TensorProto.INT64, [9]))
    single("category_text", "CategoryMapper", {"X": text("b", "a", "z")}, ["int64"], cats_strings=["a", "b"], cats_int64s=[5, 6], default_int64=-3)
    single("category_int", "CategoryMapper", {"X": ints(5, 6, 7)}, ["object"], cats_strings=["a", "b"], cats_int64s=[5, 6], default_string="none")
    single("vectorizer", "FeatureVectorizer", {"a": x, "b": x[:, :1].copy()}, ["float32"], inputdimensions=[3, 1])
    single("extractor", "ArrayFeatureExtractor", {"X": x, "Y": ints(2, 0)}, ["float32"])
    single("extractor_text", "ArrayFeatureExtractor", {"X": text("a", "b", "c"), "Y": ints(2, 0, 2)}, ["object"])
    weights = [0.5, -1.0, 0.25, 1.0, 2.0, -0.5, -0.75, 0.1, 0.2]
    for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        single(f"linear_{post}", "LinearClassifier", {"X": x}, ["int64", "float32"], coefficients=weights, intercepts=[0.1, 0.2, 0.3], classlabels_ints=[4, 5, 6], post_transform=post)
        single(f"linear_two_{post}", "LinearClassifier", {"X": x}, ["object", "float32"], coefficients=weights[:3], intercepts=[0.1], classlabels_strings=["no", "yes"], post_transform=post)
        single(f"regressor_{post}", "LinearRegressor", {"X": x}, ["float32"], coefficients=weights[:6], intercepts=[0.1, 0.2], targets=2, post_transform=post)
    single("linear_int", "LinearClassifier", {"X": x.astype(numpy.int64)}, ["int64", "float32"], coefficients=weights, intercepts=[0.1, 0.2, 0.3], classlabels_ints=[4, 5, 6])
    for kind, values in {"text": text("1.5", " 2", "NaN"), "whole": text("1", "-2", "30")}.items():
        single(f"cast_{kind}_float", "Cast", {"X": values}, ["float32"], domain="", to=TensorProto.FLOAT)
    single("cast_text_int", "Cast", {"X": text("1", "-2", "30")}, ["int64"], domain="", to=TensorProto.INT64)
    single("cast_float_text", "Cast", {"X": f(0.1, 1, -2.5, 1e10, 1.5e-7, nan, float("inf"), 123456.789, shape=(8,))}, ["object"], domain="", to=TensorProto.STRING)
    single("cast_double_text", "Cast", {"X": numpy.array([0.1, 1, 1e300, -2.5])}, ["object"], domain="", to=TensorProto.STRING)
    single("cast_int_text", "Cast", {"X": ints(1, -2, 1 << 40)}, ["object"], domain="", to=TensorProto.STRING)
    single("cast_float_int", "Cast", {"X": f(1.9, -1.9, 0.5, 100, shape=(4,))}, ["int64"], domain="", to=TensorProto.INT64)
    single("cast_bool", "Cast", {"X": f(0, -0.0, 0.5, nan, shape=(4,))}, ["bool"], domain="", to=TensorProto.BOOL)
    trees(x)


def trees(x):
    nodes = dict(
        nodes_treeids=[0, 0, 0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
        nodes_featureids=[0, 1, 0, 0, 0, 2, 0, 0],
        nodes_values=[0.5, -1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
        nodes_missing_value_tracks_true=[1, 0, 0, 0, 0, 0, 0, 0],
    )
    x = numpy.concatenate([x, numpy.array([[numpy.nan] * 3], numpy.float32)])
    double = x.astype(numpy.float64)
    target = dict(target_treeids=[0, 0, 0, 1, 1], target_nodeids=[2, 3, 4, 1, 2], target_ids=[0, 1, 0, 1, 0], target_weights=[0.5, -1.0, 2.0, 0.25, 4.0], n_targets=2)
    for how in ("SUM", "AVERAGE", "MIN", "MAX"):
        single(f"trees_{how}", "TreeEnsembleRegressor", {"X": x}, ["float32"], aggregate_function=how, base_values=[0.5, 1.0], **nodes, **target)
    single("trees_double_input", "TreeEnsembleRegressor", {"X": double}, ["float32"], **nodes, **target)
    as_tensor = {k: v for k, v in nodes.items() if k != "nodes_values"}
    as_tensor["nodes_values_as_tensor"] = helper.make_tensor("v", TensorProto.DOUBLE, [8], nodes["nodes_values"])
    targets = {k: v for k, v in target.items() if k != "target_weights"}
    targets["target_weights_as_tensor"] = helper.make_tensor("w", TensorProto.DOUBLE, [5], target["target_weights"])
    single("trees_as_tensor", "TreeEnsembleRegressor", {"X": double}, ["float32"], **as_tensor, **targets)
    for labels in (2, 3):
        ids = [0, 1, 0, 1, 0] if labels == 2 else [0, 1, 2, 1, 2]
        # Of two classes ONNX Runtime answers 0 and 1 whatever the labels are; we answer the labels.
        names = [0, 1] if labels == 2 else [10, 11, 12]
        classes = dict(class_treeids=[0, 0, 0, 1, 1], class_nodeids=[2, 3, 4, 1, 2], class_ids=ids, class_weights=[0.5, -1.0, 2.0, 0.25, 4.0])
        for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
            single(f"classes_{labels}_{post}", "TreeEnsembleClassifier", {"X": x}, ["int64", "float32"], classlabels_int64s=names, post_transform=post, **nodes, **classes)
        single(f"classes_{labels}_int", "TreeEnsembleClassifier", {"X": numpy.nan_to_num(x).astype(numpy.int64)}, ["int64", "float32"], classlabels_int64s=names, **nodes, **classes)
        single(f"classes_{labels}_double", "TreeEnsembleClassifier", {"X": double}, ["object", "float32"], classlabels_strings=["a", "b", "c"][:labels], **nodes, **classes)


def neighbours():
    """Nearest neighbours: exported as a `Scan` over the rows, which computes distances."""
    x, y, names = iris_x[::4], iris_y[::4], iris_names[::4]
    sklearn_model("neighbours_strings", KNeighborsClassifier(5), x, names)
    sklearn_model("neighbours_weighted", KNeighborsClassifier(4, weights="distance"), x, y)
    sklearn_model("neighbours_manhattan", KNeighborsClassifier(3, metric="manhattan"), x, y)
    sklearn_model("neighbours_minkowski", KNeighborsClassifier(3, p=3), x, y)
    sklearn_model("neighbours_double", KNeighborsClassifier(3), x, y, cast=numpy.float64)
    sklearn_model("neighbours_many", KNeighborsClassifier(3), x, numpy.stack([y, (y + 1) % 3], 1))
    sklearn_model("neighbours_scaled", make_pipeline(StandardScaler(), KNeighborsClassifier(3)), x, y, options={"zipmap": False})
    sugar = sugar_x[::10], sugar_y[::10]
    sklearn_model("neighbours_regression_weighted", KNeighborsRegressor(3, weights="distance"), *sugar)
    sklearn_model("neighbours_regression_double", KNeighborsRegressor(3), *sugar, cast=numpy.float64)
    sklearn_model("neighbours_regression_two", KNeighborsRegressor(3), x[:, :2], x[:, 2:])
    sklearn_model("neighbours_graph", KNeighborsTransformer(n_neighbors=3), x)
    sklearn_model("neighbours_outliers", LocalOutlierFactor(n_neighbors=4, novelty=True), x)


def dictionaries():
    """Models that take a map, for one row. The inputs are recorded as columns of several rows,
    which is how they are served; ONNX Runtime was given each row as a map."""
    rows = [
        {"length": float(a), "width": float(b), f"colour={c}": 1.0}
        for (a, b), c in zip(iris_x[::10, :2], ["red", "green", "blue"] * 5)
    ]
    classes = iris_names[::10]
    logistic = make_pipeline(DictVectorizer(sparse=False), LogisticRegression(max_iter=300))
    forest = make_pipeline(DictVectorizer(), RandomForestClassifier(4, max_depth=3, random_state=0))
    for name, model in {
        "dictionary": DictVectorizer(sparse=False),
        "dictionary_logistic": logistic,
        "dictionary_forest": forest,
    }.items():
        try:
            model.fit(rows, classes)
            last = model[-1] if hasattr(model, "steps") else model
            kind = DictionaryType(StringTensorType([1]), FloatTensorType([1]))
            options = {id(last): {"zipmap": False}} if hasattr(last, "classes_") else None
            proto = to_onnx(
                model,
                initial_types=[("X", kind)],
                target_opset={"": 17, "ai.onnx.ml": 3},
                options=options,
            )
            dictionary_model(name, proto, rows[:5] + [{"width": 3.0}])
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error)[:150]}"


def dictionary_model(name, proto, rows):
    proto.ir_version = min(proto.ir_version, 10)
    data = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    results = [session.run(None, {"X": row}) for row in rows]
    vectorizer = next(node for node in proto.graph.node if node.op_type == "DictVectorizer")
    vocabulary = next(a for a in vectorizer.attribute if a.name == "string_vocabulary").strings
    columns = {
        key.decode(): numpy.array([row.get(key.decode(), 0.0) for row in rows], numpy.float32)
        for key in vocabulary
    }
    (HERE / f"{name}.onnx").write_bytes(data)
    answers[name] = {
        "inputs": {key: value(array) for key, array in columns.items()},
        "outputs": {
            info.name: value(numpy.concatenate([result[index] for result in results]))
            for index, info in enumerate(session.get_outputs())
        },
    }


def network(name, inputs, nodes, weights, output):
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    given = [
        helper.make_tensor_value_info(key, kinds[array.dtype.name], ["N", *array.shape[1:]])
        for key, array in inputs.items()
    ]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", output])]
    tensors = [onnx.numpy_helper.from_array(array, key) for key, array in weights.items()]
    graph = helper.make_graph(nodes, name, given, made, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    record(name, model, inputs)


def networks():
    """A transformer's layer and a small convolutional network, with random weights."""
    random = numpy.random.default_rng(7)
    f = lambda *shape: (random.standard_normal(shape) / numpy.sqrt(shape[-1])).astype(numpy.float32)
    ints = lambda *v: numpy.array(v, numpy.int64)
    n = helper.make_node
    width, heads = 16, 2
    weights = {
        "words": f(50, width), "q": f(width, width), "k": f(width, width), "v": f(width, width),
        "o": f(width, width), "up": f(width, 32), "down": f(32, width), "scale": f(width), "shift": f(width),
        "split": ints(0, -1, heads, width // heads), "join": ints(0, -1, width),
        "root": numpy.array(numpy.sqrt(width // heads), numpy.float32),
        "two": numpy.array(numpy.sqrt(2), numpy.float32), "one": numpy.array(1, numpy.float32), "half": numpy.array(0.5, numpy.float32),
    }
    nodes = [n("Gather", ["words", "tokens"], ["x"])]
    for key, order in ("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]):
        nodes += [
            n("MatMul", ["x", key], [f"{key}1"]),
            n("Reshape", [f"{key}1", "split"], [f"{key}2"]),
            n("Transpose", [f"{key}2"], [f"{key}3"], perm=order),
        ]
    nodes += [
        n("MatMul", ["q3", "k3"], ["s1"]), n("Div", ["s1", "root"], ["s2"]), n("Softmax", ["s2"], ["s3"], axis=-1),
        n("MatMul", ["s3", "v3"], ["a1"]), n("Transpose", ["a1"], ["a2"], perm=[0, 2, 1, 3]), n("Reshape", ["a2", "join"], ["a3"]),
        n("MatMul", ["a3", "o"], ["a4"]), n("Add", ["x", "a4"], ["b1"]),
        n("LayerNormalization", ["b1", "scale", "shift"], ["b2"], axis=-1),
        n("MatMul", ["b2", "up"], ["m1"]), n("Div", ["m1", "two"], ["m2"]), n("Erf", ["m2"], ["m3"]), n("Add", ["m3", "one"], ["m4"]),
        n("Mul", ["m1", "m4"], ["m5"]), n("Mul", ["m5", "half"], ["m6"]), n("MatMul", ["m6", "down"], ["m7"]),
        n("Add", ["b2", "m7"], ["c1"]), n("ReduceMean", ["c1"], ["y"], axes=[1], keepdims=0),
    ]
    network("network_transformer", {"tokens": random.integers(0, 50, (3, 8))}, nodes, weights, width)
    weights = {
        "c1": f(6, 3, 3, 3), "d1": f(6), "c2": f(6, 1, 3, 3), "c3": f(8, 6, 1, 1), "g": f(5, 8), "h": f(5),
        "mean": f(6), "spread": numpy.abs(f(6)) + 1, "scale": f(6), "shift": f(6),
    }
    nodes = [
        n("Conv", ["x", "c1", "d1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        n("BatchNormalization", ["a", "scale", "shift", "mean", "spread"], ["b"]), n("Relu", ["b"], ["c"]),
        n("Conv", ["c", "c2"], ["d"], group=6, pads=[1, 1, 1, 1]), n("Sigmoid", ["d"], ["e"]), n("Mul", ["d", "e"], ["i"]),
        n("MaxPool", ["i"], ["j"], kernel_shape=[2, 2], strides=[2, 2]), n("Conv", ["j", "c3"], ["k"]),
        n("GlobalAveragePool", ["k"], ["l"]), n("Flatten", ["l"], ["m"]), n("Gemm", ["m", "g", "h"], ["o"], transB=1),
        n("Softmax", ["o"], ["y"], axis=-1),
    ]
    network("network_convolutional", {"x": f(3, 3, 16, 16)}, nodes, weights, 5)


PARTS = {
    part.__name__: part
    for part in (classifiers, regressors, transformers, tables, boosters, singles, neighbours, dictionaries, networks)
}


def main(chosen):
    HERE.mkdir(exist_ok=True)
    if chosen:
        answers.update(json.loads((HERE / "answers.json").read_text())["models"])
    else:
        for old in HERE.glob("*.onnx"):
            old.unlink()
    for part in chosen or PARTS:
        PARTS[part]()
    versions = {m.__name__: m.__version__ for m in (sklearn, skl2onnx, lightgbm, xgboost, onnxmltools, onnxruntime, onnx)}
    text = json.dumps({"versions": versions, "models": answers}, separators=(",", ":"))
    (HERE / "answers.json").write_text(text.replace('},"', '},\n"') + "\n")
    print(len(answers), "models;", sum(f.stat().st_size for f in HERE.iterdir()), "bytes")
    for name, error in failed.items():
        print("not made:", name, error)


if __name__ == "__main__":
    main(sys.argv[1:])

//! Which rule an operator follows.

use super::{
    Batch, Call, Extent, Fixed, Other, Reason, Value, arrange, broadcast, calculate, windows,
};

/// Operators that may take the number of rows as a number and have a rule for it.
pub fn may_take_counts(operator: &str) -> bool {
    matches!(
        operator,
        "Shape"
            | "Identity"
            | "Cast"
            | "Gather"
            | "Slice"
            | "Concat"
            | "Squeeze"
            | "Unsqueeze"
            | "Reshape"
            | "Expand"
            | "ConstantOfShape"
            | "Tile"
            | "Resize"
            | "Upsample"
            | "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Equal"
            | "Where"
    )
}

/// Operators whose results differ from run to run, so that nothing they make is constant.
pub fn is_random(operator: &str) -> bool {
    operator.starts_with("Random") || matches!(operator, "Multinomial" | "Bernoulli")
}

/// What a node makes of its inputs; the error says why rows cannot be told apart afterwards.
pub fn apply(call: &Call) -> Result<Vec<Value>, Reason> {
    let one = |dims: Result<Vec<Extent>, Reason>| dims.map(|dims| vec![Value::of(dims)]);
    match call.node.domain.as_str() {
        "" => standard(call),
        "ai.onnx.ml" => classical(call),
        "com.microsoft" => match call.node.op_type.as_str() {
            "Gelu" | "QuickGelu" => one(unary(call)),
            "FastGelu" | "BiasGelu" => one(elementwise(call)),
            "FusedConv" => one(windows::convolution(call, 0, 1)),
            "SkipLayerNormalization" => calculate::skip_layer_norm(call),
            _ => Err(no_rule()),
        },
        _ => Err(no_rule()),
    }
}

fn no_rule() -> Reason {
    "is not known to keep rows apart".into()
}

fn standard(call: &Call) -> Result<Vec<Value>, Reason> {
    let one = |dims: Result<Vec<Extent>, Reason>| dims.map(|dims| vec![Value::of(dims)]);
    match call.node.op_type.as_str() {
        "Identity" | "Cast" => arrange::cast(call),
        "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot"
        | "CastLike" | "Ceil" | "Celu" | "Clip" | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp"
        | "Floor" | "Gelu" | "HardSigmoid" | "HardSwish" | "IsInf" | "IsNaN" | "LeakyRelu"
        | "Log" | "Mish" | "Neg" | "Not" | "Reciprocal" | "RegexFullMatch" | "Relu" | "Round"
        | "Selu" | "Shrink" | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Softplus" | "Softsign"
        | "Sqrt" | "Swish" | "Tan" | "Tanh" | "ThresholdedRelu" => one(unary(call)),
        "Add" | "Sub" | "Mul" | "Div" | "Equal" | "Where" => arrange::arithmetic(call),
        "And" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Greater"
        | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "Or"
        | "PRelu" | "Pow" | "StringConcat" | "Sum" | "Xor" => one(elementwise(call)),
        "QuantizeLinear" | "DequantizeLinear" => one(calculate::quantise(call)),
        "Dropout" => calculate::dropout(call),

        "MatMul" => one(calculate::matmul(call, 0, 1)),
        "MatMulInteger" => {
            call.only_constants_from(2)?;
            calculate::scalars(call, &[2])?;
            one(calculate::matmul(call, 0, 1))
        }
        "QLinearMatMul" => {
            calculate::scalars(call, &[1, 2, 6, 7])?;
            one(calculate::matmul(call, 0, 3))
        }
        "Gemm" => one(calculate::gemm(call)),
        "Einsum" => one(calculate::einsum(call)),
        "Conv" | "ConvInteger" => one(windows::convolution(call, 0, 1)),
        "QLinearConv" => one(windows::convolution(call, 0, 3)),
        "ConvTranspose" => one(windows::transposed(call)),
        "MaxPool" | "AveragePool" | "LpPool" => windows::pool(call),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => one(windows::global(call)),
        "LSTM" | "GRU" | "RNN" => calculate::recurrent(call),

        "BatchNormalization" => calculate::batch_norm(call),
        "InstanceNormalization" | "GroupNormalization" | "LRN" => one(rows_first(call, 3)),
        "LayerNormalization" | "RMSNormalization" => calculate::layer_norm(call),
        "LpNormalization" => one(calculate::along_axis(call, -1)),
        "Softmax" | "LogSoftmax" | "Hardmax" => one(calculate::softmax(call)),
        "CumSum" => one(calculate::cumulate(call)),
        "ArgMax" | "ArgMin" => one(calculate::arg(call)),
        "TopK" => calculate::top(call),
        operator if operator.starts_with("Reduce") => one(calculate::reduce(call)),

        "Shape" => arrange::shape(call),
        "Constant" => arrange::constant(call),
        "Range" => one(arrange::range_of(call)),
        "ConstantOfShape" => arrange::constant_of_shape(call),
        "Reshape" => arrange::reshape(call),
        "Flatten" => one(arrange::flatten(call)),
        "Transpose" => one(arrange::transpose(call)),
        "Squeeze" => arrange::squeeze(call),
        "Unsqueeze" => arrange::unsqueeze(call),
        "Concat" => arrange::concat(call),
        "Split" => arrange::split(call),
        "Slice" => arrange::slice(call),
        "Gather" => arrange::gather(call),
        "GatherElements" => one(arrange::gather_elements(call)),
        "Expand" => one(arrange::expand(call)),
        "Tile" => one(arrange::tile(call)),
        "Pad" => one(arrange::pad(call)),
        "OneHot" => one(arrange::one_hot(call)),
        "Trilu" => one(arrange::trilu(call)),
        "Resize" | "Upsample" => one(windows::resize(call)),
        "DepthToSpace" | "SpaceToDepth" => {
            one(rows_first(call, 4).map(|_| vec![Batch, Other, Other, Other]))
        }
        "TfIdfVectorizer" => one(rows_first(call, 2).map(|_| vec![Batch, Other])),
        _ => Err(no_rule()),
    }
}

/// The operators of `ai.onnx.ml`; most take a matrix and treat each row alike.
fn classical(call: &Call) -> Result<Vec<Value>, Reason> {
    let one = |dims: Result<Vec<Extent>, Reason>| dims.map(|dims| vec![Value::of(dims)]);
    let column = |extent: Extent| one(matrix(call).map(|_| vec![Batch, extent]));
    match call.node.op_type.as_str() {
        "Scaler" | "Imputer" | "Normalizer" => one(matrix(call)),
        "Binarizer" | "LabelEncoder" | "CategoryMapper" => one(unary(call)),
        "OneHotEncoder" => {
            let categories = ["cats_int64s", "cats_strings"]
                .map(|name| call.attribute(name).map_or(0, |a| a.ints.len() + a.strings.len()));
            let mut dims = call.dims(0)?.to_vec();
            dims.push(extent(categories.iter().sum()));
            one(Ok(dims))
        }
        "ArrayFeatureExtractor" => one(arrange::extract_features(call)),
        "FeatureVectorizer" => one(feature_vectorizer(call)),
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => {
            matrix(call)?;
            let names = ["classlabels_strings", "classlabels_int64s", "classlabels_ints"];
            let count = |name| call.attribute(name).map_or(0, |a| a.ints.len() + a.strings.len());
            let classes = names.iter().map(|name| count(name)).max().unwrap_or(0);
            // Support vectors without probabilities give one score for each pair of classes.
            let pairwise = call.node.op_type == "SVMClassifier";
            let scores = if pairwise || classes == 0 { Other } else { extent(classes) };
            Ok(vec![Value::of(vec![Batch]), Value::of(vec![Batch, scores])])
        }
        "LinearRegressor" => column(Fixed(call.int("targets", 1))),
        "SVMRegressor" => column(Fixed(1)),
        "TreeEnsembleRegressor" | "TreeEnsemble" => column(match call.int("n_targets", 0) {
            0 => Other,
            targets => Fixed(targets),
        }),
        _ => Err(no_rule()),
    }
}

fn extent(count: usize) -> Extent {
    i64::try_from(count).map_or(Other, Fixed)
}

/// Results of the first input's shape; further inputs are parameters.
pub fn unary(call: &Call) -> Result<Vec<Extent>, Reason> {
    call.only_constants_from(1)?;
    Ok(call.dims(0)?.to_vec())
}

/// All inputs broadcast to each other.
pub fn elementwise(call: &Call) -> Result<Vec<Extent>, Reason> {
    // Before version 7 of the operator set, operands were aligned by attributes.
    if call.int("broadcast", 0) != 0 && call.dims(1)?.iter().any(|dim| *dim != Fixed(1)) {
        return Err("is aligned as it was before version 7 of the operator set".into());
    }
    let dims =
        (0..call.inputs.len()).map(|index| call.dims(index)).collect::<Result<Vec<_>, _>>()?;
    broadcast(&dims)
}

/// A first input of at least `rank` dimensions with the rows first; others are parameters.
pub fn rows_first(call: &Call, rank: usize) -> Result<Vec<Extent>, Reason> {
    call.only_constants_from(1)?;
    let dims = call.dims(0)?;
    if dims.first() != Some(&Batch) || dims.len() < rank {
        return Err(format!("has rows that are not along the first of at least {rank} dimensions"));
    }
    Ok(dims.to_vec())
}

/// The only input as a matrix of rows. (A list counts as a single row, so it is none.)
fn matrix(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = rows_first(call, 2)?;
    if dims.len() > 2 { Err("takes more than two dimensions".into()) } else { Ok(dims) }
}

fn feature_vectorizer(call: &Call) -> Result<Vec<Extent>, Reason> {
    let mut width = Some(0i64);
    for index in 0..call.inputs.len() {
        match call.dims(index)? {
            [Batch, Fixed(columns)] => width = width.and_then(|width| width.checked_add(*columns)),
            [Batch, Other] => width = None,
            _ => return Err("takes something other than matrices of rows".into()),
        }
    }
    Ok(vec![Batch, width.map_or(Other, Fixed)])
}

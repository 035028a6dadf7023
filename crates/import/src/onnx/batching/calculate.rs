//! Operators that combine elements along an axis: products, reductions, normalisations, sorting.

use super::{
    Batch, Call, Extent, Fixed, Other, Reason, Value, batch_axis, broadcast, combine, position,
    positions, rules,
};

/// NumPy's matrix product of two inputs.
pub fn matmul(call: &Call, left: usize, right: usize) -> Result<Vec<Extent>, Reason> {
    let (a, b) = (call.dims(left)?, call.dims(right)?);
    if a.is_empty() || b.is_empty() {
        return Err("multiplies a scalar".into());
    }
    // A list counts as a row on the left and as a column on the right, and is dropped again.
    let wide = |dims: &[Extent], row: bool| match dims {
        [only] if row => vec![Fixed(1), *only],
        [only] => vec![*only, Fixed(1)],
        _ => dims.to_vec(),
    };
    let (a, b, lists) = (wide(a, true), wide(b, false), (a.len() == 1, b.len() == 1));
    let (outer_a, [m, inner_a]) = a.split_at(a.len() - 2) else {
        return Err("has no matrix".into());
    };
    let (outer_b, [inner_b, n]) = b.split_at(b.len() - 2) else {
        return Err("has no matrix".into());
    };
    if *inner_a == Batch || *inner_b == Batch {
        return Err("adds up over the rows".into());
    }
    let mut dims = broadcast(&[outer_a, outer_b])?;
    if !lists.0 {
        dims.push(*m);
    }
    if !lists.1 {
        dims.push(*n);
    }
    // One axis of rows here may hide that the other operand had its rows elsewhere.
    let varying = [a.contains(&Batch), b.contains(&Batch)].iter().filter(|varies| **varies).count();
    let aligned = varying < 2 || (outer_a.contains(&Batch) && outer_b.contains(&Batch));
    if aligned { Ok(dims) } else { Err("relates rows to each other".into()) }
}

/// `Gemm`: the product of two matrices, plus a third.
pub fn gemm(call: &Call) -> Result<Vec<Extent>, Reason> {
    let matrix = |index: usize, transposed: bool| match call.dims(index)? {
        [first, second] if transposed => Ok([*second, *first]),
        [first, second] => Ok([*first, *second]),
        _ => Err("multiplies something other than matrices".to_owned()),
    };
    let [m, inner_a] = matrix(0, call.int("transA", 0) != 0)?;
    let [inner_b, n] = matrix(1, call.int("transB", 0) != 0)?;
    if inner_a == Batch || inner_b == Batch {
        return Err("adds up over the rows".into());
    }
    match call.given(2) {
        Some(_) => {
            let dims = broadcast(&[&[m, n], call.dims(2)?])?;
            if dims.len() == 2 {
                Ok(dims)
            } else {
                Err("adds something other than a matrix".into())
            }
        }
        None => Ok(vec![m, n]),
    }
}

/// `Einsum`: the rows have to carry one letter in all operands that have them, and in the result.
pub fn einsum(call: &Call) -> Result<Vec<Extent>, Reason> {
    let equation: String =
        String::from_utf8_lossy(call.text("equation")).chars().filter(|c| *c != ' ').collect();
    let unclear = || format!("has the equation \"{equation}\", which is not followed");
    let (terms, result) = equation.split_once("->").ok_or_else(unclear)?;
    let terms: Vec<Vec<char>> = terms.split(',').map(|term| term.chars().collect()).collect();
    if terms.len() != call.inputs.len() || equation.contains('.') {
        return Err(unclear());
    }
    let mut extents: Vec<(char, Extent)> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let dims = call.dims(index)?;
        if dims.len() != term.len() {
            return Err(unclear());
        }
        for (letter, dim) in term.iter().zip(dims) {
            match extents.iter_mut().find(|(known, _)| known == letter) {
                Some((_, known)) => *known = combine(*known, *dim)?,
                None => extents.push((*letter, *dim)),
            }
        }
    }
    let summed = |(letter, dim): &(char, Extent)| *dim == Batch && !result.contains(*letter);
    if extents.iter().any(summed) {
        return Err("adds up over the rows".into());
    }
    let extent =
        |letter: char| extents.iter().find(|(known, _)| *known == letter).map(|(_, dim)| *dim);
    result.chars().map(|letter| extent(letter).ok_or_else(unclear)).collect()
}

/// Parameters that have to be single elements (or absent), as quantisation's usually are.
pub fn scalars(call: &Call, indices: &[usize]) -> Result<(), Reason> {
    for index in indices.iter().filter(|index| call.given(**index).is_some()) {
        if call.given(*index).is_some_and(Value::varies) {
            return Err("has parameters that vary with the rows".into());
        }
        if call.dims(*index)?.iter().any(|dim| *dim != Fixed(1)) {
            return Err("has a scale for each element of an axis".into());
        }
    }
    Ok(())
}

/// `QuantizeLinear` and `DequantizeLinear`.
pub fn quantise(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = rules::unary(call)?;
    match call.dims(1)? {
        [] | [Fixed(1)] => Ok(dims),
        [_] if Some(call.axis(1, dims.len())?) != batch_axis(&dims) => Ok(dims),
        _ => Err("has a scale for each row".into()),
    }
}

/// `Dropout`, which does nothing outside of training.
pub fn dropout(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = rules::unary(call)?;
    if call.opset < 7 && call.int("is_test", 0) == 0 {
        return Err("is in training mode, where it is random".into());
    }
    let training = call.node.input.get(2).filter(|name| !name.is_empty()).map(|name| {
        let flag = call.tensors.get(name.as_str()).and_then(|tensor| tensor.to_tensor().ok());
        flag.and_then(|flag| flag.as_bools().map(<[u8]>::to_vec)) != Some(vec![0])
    });
    if training.unwrap_or(false) {
        return Err("may be in training mode, where it is random".into());
    }
    Ok(vec![Value::of(dims.clone()), Value::of(dims)])
}

/// `LSTM`, `GRU` and `RNN`.
pub fn recurrent(call: &Call) -> Result<Vec<Value>, Reason> {
    let rows_first = call.int("layout", 0) != 0;
    let input = call.dims(0)?;
    let expected = if rows_first { 0 } else { 1 };
    if input.len() != 3 || batch_axis(input) != Some(expected) {
        return Err(format!("takes the rows along axis {expected} of three"));
    }
    for weights in [1, 2, 3, 7] {
        if call.given(weights).is_some_and(Value::varies) {
            return Err("has parameters that vary with the rows".into());
        }
    }
    // The lengths are one for each row; the states have the directions in front of the rows.
    let states = if rows_first { 0 } else { 1 };
    for (index, axis) in [(4, 0), (5, states), (6, states)] {
        if call.given(index).is_some() && batch_axis(call.dims(index)?) != Some(axis) {
            return Err("begins with states whose number of rows is fixed".into());
        }
    }
    let directions = if call.text("direction") == b"bidirectional" { 2 } else { 1 };
    let (directions, hidden) = (
        Fixed(directions),
        match call.int("hidden_size", 0) {
            0 => Other,
            size => Fixed(size),
        },
    );
    let time = input[1 - expected];
    let (all, last) = match rows_first {
        true => (vec![Batch, time, directions, hidden], vec![Batch, directions, hidden]),
        false => (vec![time, directions, Batch, hidden], vec![directions, Batch, hidden]),
    };
    Ok(vec![Value::of(all), Value::of(last.clone()), Value::of(last)])
}

/// `BatchNormalization`, which uses the rows' own statistics only in training.
pub fn batch_norm(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = rules::rows_first(call, 2)?;
    let further = call.node.output.iter().skip(1).any(|name| !name.is_empty());
    let trains = call.opset < 7 && call.int("is_test", 0) == 0;
    if trains || call.int("training_mode", 0) != 0 || further {
        return Err("is in training mode, where rows influence each other".into());
    }
    Ok(vec![Value::of(dims)])
}

/// `LayerNormalization` and `RMSNormalization`: over all dimensions from an axis on.
pub fn layer_norm(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = rules::unary(call)?;
    let axis = call.axis(-1, dims.len())?;
    before(&dims, axis)?;
    let mut statistics = dims.clone();
    statistics[axis..].fill(Fixed(1));
    for parameter in [1, 2] {
        if call.given(parameter).is_some() && call.dims(parameter)?.len() > dims.len() - axis {
            return Err("has parameters of more dimensions than it normalises".into());
        }
    }
    Ok(vec![Value::of(dims), Value::of(statistics.clone()), Value::of(statistics)])
}

/// ONNX Runtime's fused residual and layer normalisation over the last dimension.
pub fn skip_layer_norm(call: &Call) -> Result<Vec<Value>, Reason> {
    call.only_constants_from(2)?;
    let dims = broadcast(&[call.dims(0)?, call.dims(1)?])?;
    if batch_axis(&dims) == Some(dims.len() - 1) {
        return Err("normalises across the rows".into());
    }
    let mut statistics = dims.clone();
    statistics.pop();
    statistics.push(Fixed(1));
    let (sum, statistics) = (Value::of(dims.clone()), Value::of(statistics));
    Ok(vec![Value::of(dims), statistics.clone(), statistics, sum])
}

/// An operator over all dimensions from `axis` on.
fn before(dims: &[Extent], axis: usize) -> Result<(), Reason> {
    match batch_axis(dims) {
        Some(rows) if rows >= axis => Err("normalises across the rows".into()),
        _ => Ok(()),
    }
}

/// `Softmax` and its relatives, which before version 13 covered all dimensions from the axis on.
pub fn softmax(call: &Call) -> Result<Vec<Extent>, Reason> {
    if call.opset >= 13 {
        return along_axis(call, -1);
    }
    let dims = rules::unary(call)?;
    let rank = dims.len();
    before(&dims, call.axis(1, rank.max(2))?)?;
    Ok(dims)
}

/// Keeps the shape and works along the axis of the attribute.
pub fn along_axis(call: &Call, default: i64) -> Result<Vec<Extent>, Reason> {
    let dims = rules::unary(call)?;
    let axis = call.axis(default, dims.len())?;
    if dims[axis] == Batch { Err("normalises across the rows".into()) } else { Ok(dims) }
}

/// `CumSum`.
pub fn cumulate(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = rules::unary(call)?;
    match call.integers(1)?.as_slice() {
        [axis] if dims[position(*axis, dims.len())?] != Batch => Ok(dims),
        _ => Err("adds up over the rows".into()),
    }
}

/// `ArgMax` and `ArgMin`.
pub fn arg(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = call.dims(0)?;
    let axis = call.axis(0, dims.len())?;
    without(dims, &[axis], call.int("keepdims", 1) != 0, "looks for the largest or smallest row")
}

/// `ReduceSum` and its relatives.
pub fn reduce(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = call.dims(0)?;
    let axes = call.list("axes", 1)?.unwrap_or_default();
    if axes.is_empty() && call.int("noop_with_empty_axes", 0) != 0 {
        return Ok(dims.to_vec());
    }
    let axes = match axes.is_empty() {
        true => (0..dims.len()).collect(),
        false => positions(&axes, dims.len())?,
    };
    without(dims, &axes, call.int("keepdims", 1) != 0, "reduces over the rows")
}

fn without(
    dims: &[Extent],
    axes: &[usize],
    keep: bool,
    problem: &str,
) -> Result<Vec<Extent>, Reason> {
    if axes.iter().any(|axis| dims[*axis] == Batch) {
        return Err(problem.into());
    }
    let reduced = |(axis, dim): (usize, &Extent)| match axes.contains(&axis) {
        true => keep.then_some(Fixed(1)),
        false => Some(*dim),
    };
    Ok(dims.iter().enumerate().filter_map(reduced).collect())
}

/// `TopK`.
pub fn top(call: &Call) -> Result<Vec<Value>, Reason> {
    call.only_constants_from(1)?;
    let mut dims = call.dims(0)?.to_vec();
    let axis = call.axis(-1, dims.len())?;
    if dims[axis] == Batch {
        return Err("sorts the rows".into());
    }
    dims[axis] =
        match call.ints("k").map(<[i64]>::to_vec).or_else(|| call.integers(1).ok()).as_deref() {
            Some([count]) => Fixed(*count),
            _ => Other,
        };
    Ok(vec![Value::of(dims.clone()), Value::of(dims)])
}

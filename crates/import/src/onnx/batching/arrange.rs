//! Operators that move elements without changing them, and arithmetic on shapes.

use model::onnx::data_type;

use super::{
    Batch, Call, Extent, Fixed, MAX_ENTRIES, Other, Reason, Value, batch_axis, combine, position,
    positions, product, rules,
};

/// A list of integers as a value.
fn list(entries: Vec<Extent>) -> Value {
    let dims = vec![Fixed(entries.len() as i64)];
    if entries.len() > MAX_ENTRIES {
        Value::of(dims)
    } else {
        Value { dims: Some(dims), entries: Some(entries) }
    }
}

/// `Identity` and `Cast`; only integers keep what is known of them.
pub fn cast(call: &Call) -> Result<Vec<Value>, Reason> {
    let mut value = call.input(0)?.clone();
    let to = i32::try_from(call.int("to", 0)).unwrap_or(0);
    let whole = [data_type::INT32, data_type::INT64, data_type::BOOL].contains(&to);
    if call.node.op_type == "Cast" && !whole {
        if value.counts() {
            return Err("computes with the number of rows".into());
        }
        value.entries = None;
    }
    Ok(vec![value])
}

/// Elementwise operators that are also used on shapes.
pub fn arithmetic(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = rules::elementwise(call)?;
    let known = call.inputs.iter().map(|value| value.and_then(|value| value.entries.as_deref()));
    let known: Option<Vec<&[Extent]>> = known.collect();
    let counts = call.inputs.iter().flatten().any(|value| value.counts());
    let entries = match known {
        Some(lists) if dims.len() <= 1 => {
            let length = lists.iter().map(|list| list.len()).max().unwrap_or(0);
            let at = |list: &[Extent], i: usize| list[if list.len() == 1 { 0 } else { i }];
            let fits = lists.iter().all(|list| list.len() == length || list.len() == 1);
            let element = |i| {
                let operands: Vec<Extent> = lists.iter().map(|list| at(list, i)).collect();
                element(&call.node.op_type, &operands)
            };
            if fits {
                (0..length).map(element).collect::<Result<Vec<_>, _>>().map(Some)
            } else {
                Ok(None)
            }
        }
        _ => Ok(None),
    };
    match entries {
        Ok(Some(entries)) => Ok(vec![Value { dims: Some(dims), entries: Some(entries) }]),
        Ok(None) | Err(()) if counts => Err("computes with the number of rows".into()),
        Ok(None) | Err(()) => Ok(vec![Value::of(dims)]),
    }
}

/// One element of arithmetic on shapes; the error is that the number of rows goes into it.
fn element(operator: &str, operands: &[Extent]) -> Result<Extent, ()> {
    Ok(match (operator, operands) {
        ("Where", [Fixed(condition), yes, no]) => {
            if *condition != 0 {
                *yes
            } else {
                *no
            }
        }
        // The number of rows is no negative number, which is what shapes are compared with.
        ("Equal", [Batch, Fixed(n)] | [Fixed(n), Batch]) if *n < 0 => Fixed(0),
        ("Equal", [Fixed(a), Fixed(b)]) => Fixed(i64::from(a == b)),
        ("Mul", [Batch, Fixed(1)] | [Fixed(1), Batch]) | ("Div", [Batch, Fixed(1)]) => Batch,
        ("Add", [Batch, Fixed(0)] | [Fixed(0), Batch]) | ("Sub", [Batch, Fixed(0)]) => Batch,
        (_, operands) if operands.contains(&Batch) => return Err(()),
        ("Add", [Fixed(a), Fixed(b)]) => a.checked_add(*b).map_or(Other, Fixed),
        ("Sub", [Fixed(a), Fixed(b)]) => a.checked_sub(*b).map_or(Other, Fixed),
        ("Mul", [Fixed(a), Fixed(b)]) => a.checked_mul(*b).map_or(Other, Fixed),
        ("Div", [Fixed(a), Fixed(b)]) => a.checked_div(*b).map_or(Other, Fixed),
        _ => Other,
    })
}

/// `Shape`.
pub fn shape(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = call.dims(0)?;
    let end = |value: i64| {
        let length = dims.len() as i64;
        usize::try_from(
            if value < 0 { value.saturating_add(length) } else { value }.clamp(0, length),
        )
        .unwrap_or(0)
    };
    let (start, stop) = (end(call.int("start", 0)), end(call.int("end", i64::MAX)));
    Ok(vec![list(dims.get(start..stop).unwrap_or_default().to_vec())])
}

/// `Constant` with its value in an attribute other than a tensor.
pub fn constant(call: &Call) -> Result<Vec<Value>, Reason> {
    let Some(attribute) = call.node.attribute.first() else { return Err("has no value".into()) };
    let length = match attribute.name.as_str() {
        "value_int" => {
            return Ok(vec![Value { dims: Some(vec![]), entries: Some(vec![Fixed(attribute.i)]) }]);
        }
        "value_ints" => return Ok(vec![list(attribute.ints.iter().map(|n| Fixed(*n)).collect())]),
        "value_float" | "value_string" => return Ok(vec![Value::of(vec![])]),
        "value_floats" => attribute.floats.len(),
        "value_strings" => attribute.strings.len(),
        _ => return Err("has no value".into()),
    };
    Ok(vec![Value::of(vec![Fixed(length as i64)])])
}

/// `Range`, whose length is followed only for known integers.
pub fn range_of(call: &Call) -> Result<Vec<Extent>, Reason> {
    call.only_constants_from(0)?;
    let known = [0, 1, 2].map(|index| call.integers(index).ok());
    let length = match known.each_ref().map(|list| list.as_deref()) {
        [Some([start]), Some([end]), Some([step])] if *step > 0 && end >= start => {
            end.checked_sub(*start).map(|distance| (distance as u64).div_ceil(*step as u64))
        }
        _ => None,
    };
    Ok(vec![length.and_then(|length| i64::try_from(length).ok()).map_or(Other, Fixed)])
}

/// `ConstantOfShape`.
pub fn constant_of_shape(call: &Call) -> Result<Vec<Value>, Reason> {
    let entries = call.input(0)?.entries.clone();
    let dims = entries.ok_or_else(|| "has a shape that is not known".to_owned())?;
    let value = call.attribute("value").and_then(|attribute| attribute.t.as_deref());
    let value = value.map(super::constant).and_then(|value| value.entries);
    let entries = match (value.as_deref(), dims.as_slice()) {
        (Some([value]), [Fixed(length)]) if (0..=MAX_ENTRIES as i64).contains(length) => {
            Some(vec![*value; *length as usize])
        }
        _ => None,
    };
    Ok(vec![Value { dims: Some(dims), entries }])
}

/// `Reshape`: the rows have to stay a dimension of their own, with as much in front of them.
pub fn reshape(call: &Call) -> Result<Vec<Value>, Reason> {
    let data = call.input(0)?;
    let dims = call.dims(0)?;
    let wanted = match call.ints("shape") {
        Some(shape) => shape.iter().map(|n| Fixed(*n)).collect(),
        None => call.input(1)?.entries.clone().ok_or("takes a shape that is not known")?,
    };
    let copies = call.int("allowzero", 0) == 0;
    let copied = |axis: usize| copies && wanted[axis] == Fixed(0);
    let mut result: Vec<Extent> = Vec::with_capacity(wanted.len());
    for (axis, extent) in wanted.iter().enumerate() {
        let copy = || dims.get(axis).copied().ok_or("copies a dimension that is not there");
        result.push(if copied(axis) { copy()? } else { *extent });
    }
    if let Some(open) = result.iter().position(|extent| *extent == Fixed(-1)) {
        let rest = |dims: &[Extent], skip: &dyn Fn(usize) -> bool| {
            let kept =
                dims.iter().enumerate().filter(|(axis, _)| !skip(*axis)).map(|(_, dim)| *dim);
            product(&kept.collect::<Vec<_>>())
        };
        // Dimensions that are copied cancel out; what is left says how much the open one takes.
        let before =
            rest(dims, &|axis| dims[axis] == Batch || (axis < wanted.len() && copied(axis)));
        let after = rest(&result, &|axis| axis == open || result[axis] == Batch || copied(axis));
        let factor = match (before, after) {
            (Some(before), Some(after)) if after != 0 && before % after == 0 => {
                Some(before / after)
            }
            _ => None,
        };
        let holds_rows = dims.contains(&Batch) && !result.contains(&Batch);
        result[open] = match factor {
            Some(1) if holds_rows => Batch,
            _ if holds_rows => return Err("folds the rows into another dimension".into()),
            factor => factor.map_or(Other, Fixed),
        };
    }
    match (batch_axis(dims), batch_axis(&result)) {
        (None, None) => {}
        (Some(from), Some(to)) => {
            let (before, after) = (product(&dims[..from]), product(&result[..to]));
            if before.is_none() || before != after {
                return Err("moves elements from row to row".into());
            }
        }
        (Some(_), None) => return Err("gives a shape with a fixed number of rows".into()),
        (None, Some(_)) => return Err("spreads a constant over the rows".into()),
    }
    let entries = if result.len() <= 1 { data.entries.clone() } else { None };
    if data.counts() && entries.is_none() {
        return Err("computes with the number of rows".into());
    }
    Ok(vec![Value { dims: Some(result), entries }])
}

/// `Flatten`.
pub fn flatten(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = call.dims(0)?;
    let axis = match call.int("axis", 1) {
        end if end == dims.len() as i64 => dims.len(),
        axis => position(axis, dims.len())?,
    };
    let side = |dims: &[Extent]| match batch_axis(dims) {
        Some(_) if dims.iter().all(|dim| matches!(dim, Batch | Fixed(1))) => Ok(Batch),
        Some(_) => Err("folds the rows into another dimension".to_owned()),
        None => Ok(product(dims).map_or(Other, Fixed)),
    };
    Ok(vec![side(&dims[..axis])?, side(&dims[axis..])?])
}

/// `Transpose`.
pub fn transpose(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = call.dims(0)?;
    match call.ints("perm") {
        Some(order) if order.len() == dims.len() => {
            Ok(positions(order, dims.len())?.into_iter().map(|axis| dims[axis]).collect())
        }
        Some(_) => Err("has a permutation of another length".into()),
        None => Ok(dims.iter().rev().copied().collect()),
    }
}

/// `Squeeze`.
pub fn squeeze(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = call.dims(0)?;
    let axes = match call.list("axes", 1)? {
        Some(axes) => positions(&axes, dims.len())?,
        None if dims.iter().all(|dim| matches!(dim, Fixed(_))) => {
            (0..dims.len()).filter(|axis| dims[*axis] == Fixed(1)).collect()
        }
        None => {
            return Err("drops every dimension that happens to be 1, also that of the rows".into());
        }
    };
    if axes.iter().any(|axis| dims[*axis] == Batch) {
        return Err("drops the dimension of the rows".into());
    }
    let kept =
        dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| *dim);
    Ok(vec![Value { dims: Some(kept.collect()), entries: call.input(0)?.entries.clone() }])
}

/// `Unsqueeze`.
pub fn unsqueeze(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = call.dims(0)?;
    let axes = call.list("axes", 1)?.ok_or("has no axes")?;
    let rank = dims.len() + axes.len();
    let axes = positions(&axes, rank)?;
    let mut rest = dims.iter().copied();
    let dim = |axis: usize| if axes.contains(&axis) { Some(Fixed(1)) } else { rest.next() };
    let result: Option<Vec<Extent>> = (0..rank).map(dim).collect();
    let result = result.ok_or("has an axis twice")?;
    let value = call.input(0)?;
    let entries = if rank <= 1 { value.entries.clone() } else { None };
    if value.counts() && entries.is_none() {
        return Err("computes with the number of rows".into());
    }
    Ok(vec![Value { dims: Some(result), entries }])
}

/// `Concat`.
pub fn concat(call: &Call) -> Result<Vec<Value>, Reason> {
    let mut result = call.dims(0)?.to_vec();
    let axis = call.axis(1, result.len())?;
    for index in 0..call.inputs.len() {
        let dims = call.dims(index)?;
        if dims.len() != result.len() {
            return Err("joins tensors of different rank".into());
        }
        for (position, (known, dim)) in result.iter_mut().zip(dims).enumerate() {
            *known = match (*known, *dim) {
                (Batch, _) | (_, Batch) if position == axis => return Err("joins rows".into()),
                _ if position == axis && index == 0 => *known,
                (Fixed(a), Fixed(b)) if position == axis => a.checked_add(b).map_or(Other, Fixed),
                _ if position == axis => Other,
                // Unlike in a broadcast, a dimension of 1 does not stretch.
                (Batch, Fixed(rows)) | (Fixed(rows), Batch) => {
                    return Err(format!("fixes the number of rows to {rows}"));
                }
                (a, b) => combine(a, b)?,
            };
        }
    }
    let lists = call.inputs.iter().map(|value| value.and_then(|value| value.entries.as_deref()));
    let lists: Option<Vec<&[Extent]>> = lists.collect();
    match lists {
        Some(lists) if result.len() == 1 => Ok(vec![list(lists.concat())]),
        _ if call.inputs.iter().flatten().any(|value| value.counts()) => {
            Ok(vec![partly_known(call, result)?])
        }
        _ => Ok(vec![Value::of(result)]),
    }
}

/// A list of integers of which some are not followed.
fn partly_known(call: &Call, dims: Vec<Extent>) -> Result<Value, Reason> {
    let mut entries = Vec::new();
    for (index, value) in call.inputs.iter().enumerate() {
        match (value.and_then(|value| value.entries.as_deref()), call.dims(index)?) {
            (Some(known), _) => entries.extend_from_slice(known),
            (None, [Fixed(length)]) if (0..=MAX_ENTRIES as i64).contains(length) => {
                entries.extend(std::iter::repeat_n(Other, *length as usize));
            }
            _ => return Err("computes with the number of rows".into()),
        }
    }
    Ok(Value { dims: Some(dims), entries: Some(entries) })
}

/// `Split`.
pub fn split(call: &Call) -> Result<Vec<Value>, Reason> {
    let dims = call.dims(0)?;
    let axis = call.axis(0, dims.len())?;
    if dims[axis] == Batch {
        return Err("splits the rows".into());
    }
    let sizes = call.list("split", 1)?;
    let parts = call.node.output.len();
    let equal = match dims[axis] {
        Fixed(whole) if parts > 0 && whole % parts as i64 == 0 => Fixed(whole / parts as i64),
        _ => Other,
    };
    let part = |index: usize| {
        let mut dims = dims.to_vec();
        let given = sizes.as_ref().map(|sizes| sizes.get(index).map_or(Other, |size| Fixed(*size)));
        dims[axis] = given.unwrap_or(equal);
        Value::of(dims)
    };
    Ok((0..parts).map(part).collect())
}

/// `Slice`.
pub fn slice(call: &Call) -> Result<Vec<Value>, Reason> {
    let value = call.input(0)?;
    let mut dims = call.dims(0)?.to_vec();
    let starts = call.list("starts", 1)?.ok_or("has no starts")?;
    // The end of a slice may be a size that is not known.
    let ends: Vec<Extent> = match call.ints("ends") {
        Some(ends) => ends.iter().map(|n| Fixed(*n)).collect(),
        None => call.input(2)?.entries.clone().ok_or("ends at a place that is not known")?,
    };
    let axes = match call.list("axes", 3)? {
        Some(axes) => positions(&axes, dims.len())?,
        None => (0..starts.len()).collect(),
    };
    let steps = match call.given(4) {
        Some(_) => call.integers(4)?,
        None => vec![1; starts.len()],
    };
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("has lists of different length".into());
    }
    let mut entries = value.entries.clone();
    for (index, axis) in axes.into_iter().enumerate() {
        let (start, end, step) = (starts[index], ends[index], steps[index]);
        let dim = dims.get_mut(axis).ok_or("slices a dimension that is not there")?;
        *dim = match *dim {
            // Ends far away are how exporters say "up to the end".
            Batch if start == 0 && step == 1 && reaches_all(end) => Batch,
            Batch => return Err("takes some of the rows".into()),
            Fixed(length) => range(length, start, end, step).map_or(Other, |range| Fixed(range.1)),
            Other => Other,
        };
        entries = match (entries, value.dims.as_deref()) {
            (Some(list), Some([Fixed(length)])) => match range(*length, start, end, step) {
                Some((first, count)) => {
                    let at =
                        |i: i64| usize::try_from(first + i * step).ok().and_then(|i| list.get(i));
                    (0..count).map(|i| at(i).copied()).collect()
                }
                None => None,
            },
            _ => None,
        };
    }
    if value.counts() && entries.is_none() {
        return Err("computes with the number of rows".into());
    }
    Ok(vec![Value { dims: Some(dims), entries }])
}

fn reaches_all(end: Extent) -> bool {
    matches!(end, Batch) || matches!(end, Fixed(end) if end >= i64::from(i32::MAX))
}

/// The first index and the number of elements of a slice.
fn range(length: i64, start: i64, end: Extent, step: i64) -> Option<(i64, i64)> {
    let Fixed(end) = end else { return None };
    let from_start = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let start = from_start(start).clamp(low.max(0), high.max(0));
    let end = from_start(end).clamp(low, high);
    let distance = if step > 0 { end - start } else { start - end };
    let count = if step == 0 {
        return None;
    } else {
        (distance.max(0) as u64).div_ceil(step.unsigned_abs())
    };
    Some((start, i64::try_from(count).ok()?))
}

/// `Gather`.
pub fn gather(call: &Call) -> Result<Vec<Value>, Reason> {
    let (data, indices) = (call.dims(0)?, call.dims(1)?);
    let axis = call.axis(0, data.len())?;
    if data[axis] == Batch {
        return Err("picks rows".into());
    }
    let mut dims = data[..axis].to_vec();
    dims.extend_from_slice(indices);
    dims.extend_from_slice(&data[axis + 1..]);
    let value = call.input(0)?;
    let picked = match (&value.entries, call.integers(1)) {
        (Some(list), Ok(wanted)) if dims.len() <= 1 => {
            let pick = |index: &i64| position(*index, list.len()).map(|index| list[index]);
            Some(wanted.iter().map(pick).collect::<Result<Vec<_>, _>>()?)
        }
        _ => None,
    };
    if value.counts() && picked.is_none() {
        return Err("computes with the number of rows".into());
    }
    // Indices that are the number of rows would pick by it.
    if call.input(1)?.counts() {
        return Err("computes with the number of rows".into());
    }
    Ok(vec![Value { dims: Some(dims), entries: picked }])
}

/// `GatherElements`: rows of indices pick from the same rows of the data.
pub fn gather_elements(call: &Call) -> Result<Vec<Extent>, Reason> {
    let (data, indices) = (call.dims(0)?, call.dims(1)?);
    let axis = call.axis(0, data.len())?;
    let rows = batch_axis(data);
    if rows.is_none() || rows != batch_axis(indices) || rows == Some(axis) {
        return Err("picks elements of other rows".into());
    }
    Ok(indices.to_vec())
}

/// `ArrayFeatureExtractor`: columns of a matrix, or elements of a constant list by row.
pub fn extract_features(call: &Call) -> Result<Vec<Extent>, Reason> {
    let (data, indices) = (call.dims(0)?, call.dims(1)?);
    let count = match batch_axis(indices) {
        None => product(indices).map_or(Other, Fixed),
        Some(_) if indices.iter().all(|dim| matches!(dim, Batch | Fixed(1))) => Batch,
        Some(_) => return Err("folds the rows into another dimension".into()),
    };
    match data {
        [Batch] => Err("picks rows".into()),
        [_] => Ok(vec![Fixed(1), count]),
        [front @ .., last] if *last != Batch => Ok([front, &[count]].concat()),
        _ => Err("picks rows".into()),
    }
}

/// `Expand`.
pub fn expand(call: &Call) -> Result<Vec<Extent>, Reason> {
    let target = call.input(1)?.entries.as_deref().ok_or("takes a shape that is not known")?;
    super::broadcast(&[call.dims(0)?, target])
}

/// `Tile`.
pub fn tile(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = call.dims(0)?;
    let repeats = call.input(1)?.entries.as_deref().ok_or("repeats an unknown number of times")?;
    if repeats.len() != dims.len() {
        return Err("has another number of repeats than dimensions".into());
    }
    let tiled = |(dim, times): (&Extent, &Extent)| match (*dim, *times) {
        (dim, Fixed(1)) | (Fixed(1), dim) => Ok(dim),
        (Batch, _) | (_, Batch) => Err("repeats rows".to_owned()),
        (Fixed(a), Fixed(b)) => Ok(a.checked_mul(b).map_or(Other, Fixed)),
        _ => Ok(Other),
    };
    dims.iter().zip(repeats).map(tiled).collect()
}

/// `Pad`.
pub fn pad(call: &Call) -> Result<Vec<Extent>, Reason> {
    call.only_constants_from(1)?;
    let dims = call.dims(0)?;
    let pads = call.ints("paddings").map(<[i64]>::to_vec);
    let pads = match pads {
        Some(pads) => pads,
        None => call.list("pads", 1)?.ok_or("has no pads")?,
    };
    let axes = match call.given(3) {
        Some(_) => positions(&call.integers(3)?, dims.len())?,
        None => (0..dims.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err("has another number of pads than dimensions".into());
    }
    let mut result = dims.to_vec();
    for (index, axis) in axes.iter().enumerate() {
        let (begin, end) = (pads[index], pads[index + axes.len()]);
        result[*axis] = match result[*axis] {
            dim if begin == 0 && end == 0 => dim,
            Batch => return Err("adds rows".into()),
            Fixed(extent) => {
                begin.checked_add(end).and_then(|n| n.checked_add(extent)).map_or(Other, Fixed)
            }
            Other => Other,
        };
    }
    Ok(result)
}

/// `OneHot`.
pub fn one_hot(call: &Call) -> Result<Vec<Extent>, Reason> {
    call.only_constants_from(1)?;
    let mut dims = call.dims(0)?.to_vec();
    let axis = call.axis(-1, dims.len() + 1)?;
    let depth = call.integers(1).ok().and_then(|depth| depth.first().copied());
    dims.insert(axis, depth.map_or(Other, Fixed));
    Ok(dims)
}

/// `Trilu`: a triangle of the last two dimensions.
pub fn trilu(call: &Call) -> Result<Vec<Extent>, Reason> {
    let dims = rules::unary(call)?;
    if dims.len() < 3 || dims[dims.len() - 2..].contains(&Batch) {
        return Err("takes a triangle across the rows".into());
    }
    Ok(dims)
}

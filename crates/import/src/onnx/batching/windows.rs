//! Convolutions, pools and resizing: operators that move a window over an image.

use super::{Batch, Call, Extent, Fixed, Other, Reason, Value, rules};

/// How one spatial dimension is walked.
struct Window {
    kernel: i64,
    stride: i64,
    dilation: i64,
    pads: i64,
}

/// `Conv` and its relatives; `x` and `w` are the positions of image and weights.
pub fn convolution(call: &Call, x: usize, w: usize) -> Result<Vec<Extent>, Reason> {
    for index in (0..call.inputs.len()).filter(|index| *index != x) {
        if call.given(index).is_some_and(Value::varies) {
            return Err("has parameters that vary with the rows".into());
        }
    }
    let image = call.dims(x)?;
    let weights = call.dims(w)?;
    if image.first() != Some(&Batch) || image.len() < 3 || weights.len() != image.len() {
        return Err("takes rows that are not along the first dimension".into());
    }
    let mut dims = vec![Batch, weights[0]];
    dims.extend(spatial(call, &image[2..], &weights[2..]));
    Ok(dims)
}

/// `ConvTranspose`; the image's new size is left open.
pub fn transposed(call: &Call) -> Result<Vec<Extent>, Reason> {
    let image = rules::rows_first(call, 3)?;
    let weights = call.dims(1)?;
    let channels = match (weights.get(1), call.int("group", 1)) {
        (Some(Fixed(channels)), groups) => channels.checked_mul(groups).map_or(Other, Fixed),
        _ => Other,
    };
    let mut dims = vec![Batch, channels];
    dims.resize(image.len(), Other);
    Ok(dims)
}

/// Pools with a window.
pub fn pool(call: &Call) -> Result<Vec<Value>, Reason> {
    let image = rules::rows_first(call, 3)?;
    let kernel: Vec<Extent> =
        call.ints("kernel_shape").unwrap_or_default().iter().map(|n| Fixed(*n)).collect();
    if kernel.len() != image.len() - 2 {
        return Err("has a kernel of another rank than its image".into());
    }
    let mut dims = image[..2].to_vec();
    dims.extend(spatial(call, &image[2..], &kernel));
    // The second result of MaxPool counts positions through all rows.
    if call.node.output.get(1).is_some_and(|name| !name.is_empty()) {
        return Err("gives positions that count through all rows".into());
    }
    Ok(vec![Value::of(dims)])
}

/// Pools over the whole image.
pub fn global(call: &Call) -> Result<Vec<Extent>, Reason> {
    let mut dims = rules::rows_first(call, 3)?;
    dims[2..].fill(Fixed(1));
    Ok(dims)
}

/// The spatial dimensions after a window has passed over them.
fn spatial(call: &Call, image: &[Extent], kernel: &[Extent]) -> Vec<Extent> {
    let rank = image.len();
    let given = |name: &str, index: usize, default: i64| {
        call.ints(name).map_or(Some(default), |list| list.get(index).copied())
    };
    let extent = |index: usize| -> Option<i64> {
        let (Fixed(size), Fixed(kernel)) = (image[index], kernel[index]) else { return None };
        let begin = given("pads", index, 0)?;
        let end = given("pads", index + rank, 0)?;
        let window = Window {
            kernel,
            stride: given("strides", index, 1)?,
            dilation: given("dilations", index, 1)?,
            pads: begin.checked_add(end)?,
        };
        window.steps(size, call.text("auto_pad"), call.int("ceil_mode", 0) != 0)
    };
    (0..rank).map(|index| extent(index).map_or(Other, Fixed)).collect()
}

impl Window {
    fn steps(&self, size: i64, auto_pad: &[u8], ceil: bool) -> Option<i64> {
        let stride = if self.stride > 0 { self.stride } else { return None };
        if auto_pad.starts_with(b"SAME") {
            return size.checked_add(stride - 1).map(|size| size / stride);
        }
        let pads = if auto_pad == b"VALID" { 0 } else { self.pads };
        let reach = self.kernel.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)?;
        let room = size.checked_add(pads)?.checked_sub(reach)?;
        // How a partial last window counts differs between versions; it is left open.
        if room < 0 || (ceil && room % stride != 0) { None } else { (room / stride).checked_add(1) }
    }
}

/// `Resize` and `Upsample`, if they leave the rows alone.
pub fn resize(call: &Call) -> Result<Vec<Extent>, Reason> {
    if call.text("coordinate_transformation_mode") == b"tf_crop_and_resize" {
        return Err("crops to a region, which may leave out rows".into());
    }
    let dims = call.dims(0)?;
    let rows = super::batch_axis(dims);
    let axes = match call.ints("axes") {
        Some(axes) => super::positions(axes, dims.len())?,
        None => (0..dims.len()).collect(),
    };
    let sizes = call.given(3).and_then(|value| value.entries.as_deref());
    let mut result = dims.to_vec();
    for (index, axis) in axes.iter().enumerate() {
        let size = sizes.and_then(|sizes| sizes.get(index)).copied();
        if Some(*axis) == rows {
            let kept = size == Some(Batch) || (sizes.is_none() && scale(call, index) == Some(1.0));
            if !kept {
                return Err("is not known to leave the number of rows as it is".into());
            }
        } else {
            result[*axis] = size.unwrap_or(Other);
        }
    }
    Ok(result)
}

/// One of the scales, which are an attribute or one of several inputs.
fn scale(call: &Call, index: usize) -> Option<f32> {
    if let Some(attribute) = call.attribute("scales") {
        return attribute.floats.get(index).copied();
    }
    let position = if call.opset <= 10 { 1 } else { 2 };
    let name = call.node.input.get(position)?;
    let scales = call.tensors.get(name.as_str())?.to_tensor().ok()?;
    scales.as_slice::<f32>()?.get(index).copied()
}

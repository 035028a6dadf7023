//! Tensors across the border to ONNX Runtime and back.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use bytes::Bytes;
use model::{Data, DataType, Tensor, bf16, f16};
use ort::sys;

/// ONNX's number of a type is ONNX Runtime's too.
fn element_type(datatype: DataType) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as Element;
    match datatype {
        DataType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// Takes over a status.
pub(super) fn check(status: sys::OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: callers hand over the status of the call just made, and do so once.
    unsafe { ort::Error::result_from_status(status) }
}

/// The description of plain memory that inputs are in.
pub(super) struct Memory(NonNull<sys::OrtMemoryInfo>);

// SAFETY: an immutable description.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn new() -> ort::Result<Self> {
        let mut info = ptr::null_mut();
        let (kind, place) =
            (sys::OrtAllocatorType::OrtArenaAllocator, sys::OrtMemType::OrtMemTypeDefault);
        // SAFETY: fills `info`, or returns an error.
        check(unsafe { (ort::api().CreateCpuMemoryInfo)(kind, place, &mut info) })?;
        Ok(Self(NonNull::new(info).ok_or_else(nothing_returned)?))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: created by us, released once.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.0.as_ptr()) };
    }
}

fn nothing_returned() -> ort::Error {
    ort::Error::new("ONNX Runtime reported success and returned nothing")
}

/// A value of ONNX Runtime's; one made from a tensor borrows the tensor's elements.
pub(super) struct Value<'tensor> {
    value: NonNull<sys::OrtValue>,
    elements: PhantomData<&'tensor Tensor>,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: owned by us, released once.
        unsafe { (ort::api().ReleaseValue)(self.value.as_ptr()) };
    }
}

impl<'tensor> Value<'tensor> {
    /// Takes over a value that ONNX Runtime made.
    pub(super) fn from_output(value: *mut sys::OrtValue) -> ort::Result<Value<'static>> {
        let value = NonNull::new(value).ok_or_else(nothing_returned)?;
        Ok(Value { value, elements: PhantomData })
    }

    pub(super) fn as_ptr(&self) -> *const sys::OrtValue {
        self.value.as_ptr()
    }

    /// Lends a tensor. Plain elements are not copied; strings are, because ONNX Runtime keeps its
    /// own.
    pub(super) fn lend(tensor: &'tensor Tensor, memory: &Memory) -> ort::Result<Self> {
        let shape: Vec<i64> = tensor.shape().iter().map(|n| *n as i64).collect();
        let kind = element_type(tensor.datatype());
        let mut value = ptr::null_mut();
        match tensor.data().as_bytes() {
            Some(bytes) => {
                // SAFETY: the elements outlive the value (`'tensor`), are as many as the shape
                // says (Tensor's invariant), and ONNX Runtime never writes to a graph's inputs.
                check(unsafe {
                    (ort::api().CreateTensorWithDataAsOrtValue)(
                        memory.0.as_ptr(),
                        bytes.as_ptr().cast_mut().cast::<c_void>(),
                        bytes.len(),
                        shape.as_ptr(),
                        shape.len(),
                        kind,
                        &mut value,
                    )
                })?;
                Self::from_output(value)
            }
            None => {
                let mut allocator = ptr::null_mut();
                // SAFETY: fills in the default allocator, which is never released.
                check(unsafe { (ort::api().GetAllocatorWithDefaultOptions)(&mut allocator) })?;
                // SAFETY: as the plain case, with elements of ONNX Runtime's own.
                check(unsafe {
                    (ort::api().CreateTensorAsOrtValue)(
                        allocator,
                        shape.as_ptr(),
                        shape.len(),
                        kind,
                        &mut value,
                    )
                })?;
                let value = Self::from_output(value)?;
                value.fill(tensor.as_strings().unwrap_or_default())?;
                Ok(value)
            }
        }
    }

    /// Copies strings in by length: those with a zero inside stay whole.
    fn fill(&self, strings: &[Bytes]) -> ort::Result<()> {
        for (index, string) in strings.iter().enumerate() {
            let mut buffer = ptr::null_mut();
            // SAFETY: the value has as many strings as the tensor; the buffer has the length that
            // was asked for and is written before anything else is called.
            unsafe {
                check((ort::api().GetResizedStringTensorElementBuffer)(
                    self.value.as_ptr(),
                    index,
                    string.len(),
                    &mut buffer,
                ))?;
                ptr::copy_nonoverlapping(string.as_ptr(), buffer.cast::<u8>(), string.len());
            }
        }
        Ok(())
    }

    /// Copies an output out.
    pub(super) fn read(&self) -> ort::Result<Tensor> {
        let (shape, kind) = self.describe()?;
        let count = model::element_count(&shape)
            .ok_or_else(|| ort::Error::new(format!("an output of shape {shape:?}")))?;
        let datatype = DataType::from_onnx(kind as i32).ok_or_else(|| {
            ort::Error::new_with_code(
                ort::ErrorCode::NotImplemented,
                format!("an output of element type {kind:?}, which no protocol can carry"),
            )
        })?;
        let data = match datatype {
            DataType::Bytes => Data::Bytes(self.read_strings(count)?),
            DataType::Bool => Data::Bool(self.copy::<u8>(count)?.into()),
            DataType::Uint8 => self.copy::<u8>(count)?.into(),
            DataType::Uint16 => self.copy::<u16>(count)?.into(),
            DataType::Uint32 => self.copy::<u32>(count)?.into(),
            DataType::Uint64 => self.copy::<u64>(count)?.into(),
            DataType::Int8 => self.copy::<i8>(count)?.into(),
            DataType::Int16 => self.copy::<i16>(count)?.into(),
            DataType::Int32 => self.copy::<i32>(count)?.into(),
            DataType::Int64 => self.copy::<i64>(count)?.into(),
            DataType::Fp16 => self.copy::<f16>(count)?.into(),
            DataType::Bf16 => self.copy::<bf16>(count)?.into(),
            DataType::Fp32 => self.copy::<f32>(count)?.into(),
            DataType::Fp64 => self.copy::<f64>(count)?.into(),
        };
        Tensor::new(shape, data).map_err(|error| ort::Error::new(error.to_string()))
    }

    /// The shape and the number of the element type.
    fn describe(&self) -> ort::Result<(Vec<usize>, sys::ONNXTensorElementDataType)> {
        let api = ort::api();
        let mut is_tensor = 0;
        let mut info = ptr::null_mut();
        // SAFETY: the value is alive; each call fills what it is given, or returns an error.
        unsafe {
            check((api.IsTensor)(self.value.as_ptr(), &mut is_tensor))?;
            if is_tensor == 0 {
                return Err(ort::Error::new_with_code(
                    ort::ErrorCode::NotImplemented,
                    "an output that is not a tensor",
                ));
            }
            check((api.GetTensorTypeAndShape)(self.value.as_ptr(), &mut info))?;
            let read = || {
                let mut kind =
                    sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
                let mut rank = 0;
                check((api.GetTensorElementType)(info, &mut kind))?;
                check((api.GetDimensionsCount)(info, &mut rank))?;
                let mut dims = vec![0i64; rank];
                check((api.GetDimensions)(info, dims.as_mut_ptr(), rank))?;
                let shape = dims.into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect();
                Ok((shape, kind))
            };
            let described = read();
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            described
        }
    }

    fn copy<T: model::Element>(&self, count: usize) -> ort::Result<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut data = ptr::null_mut();
        // SAFETY: fills in where the elements are, or returns an error.
        check(unsafe { (ort::api().GetTensorMutableData)(self.value.as_ptr(), &mut data) })?;
        let data = NonNull::new(data.cast::<T>()).ok_or_else(nothing_returned)?;
        // SAFETY: `count` elements of this type, aligned, alive while the value is, and any bits
        // are valid for a plain type.
        Ok(unsafe { std::slice::from_raw_parts(data.as_ptr(), count) }.to_vec())
    }

    fn read_strings(&self, count: usize) -> ort::Result<Vec<Bytes>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let api = ort::api();
        let mut length = 0;
        // SAFETY: fills in the length of all strings together.
        check(unsafe { (api.GetStringTensorDataLength)(self.value.as_ptr(), &mut length) })?;
        let mut content = vec![0u8; length];
        let mut starts = vec![0usize; count];
        // SAFETY: both buffers have the lengths that are given with them.
        check(unsafe {
            (api.GetStringTensorContent)(
                self.value.as_ptr(),
                content.as_mut_ptr().cast::<c_void>(),
                length,
                starts.as_mut_ptr(),
                count,
            )
        })?;
        let content = Bytes::from(content);
        let ends = starts[1..].iter().copied().chain([length]);
        Ok(starts.iter().zip(ends).map(|(start, end)| content.slice(*start..end)).collect())
    }
}

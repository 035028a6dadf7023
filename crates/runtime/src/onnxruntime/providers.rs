//! Execution providers: the parts of ONNX Runtime that run a model on other hardware.

use std::ptr;

use ort::AsPointer;
use ort::session::builder::SessionBuilder;

use crate::Error;

use super::message::{Doing, explain};

const CPU: &str = "cpu";

/// The name that users write: `CUDAExecutionProvider` is `cuda`.
pub(super) fn short(name: &str) -> String {
    name.strip_suffix("ExecutionProvider").unwrap_or(name).to_ascii_lowercase()
}

/// The library's names of the wanted providers, in order; the processor comes last in any case
/// and is not named.
///
/// Fails on one that the library was not built with, naming those that it was.
pub(super) fn choose<'a>(
    wanted: &[String],
    available: &'a [String],
) -> Result<Vec<&'a str>, Error> {
    let mut chosen = Vec::new();
    for name in wanted {
        let name = short(name);
        if name == CPU {
            // The processor runs whatever the ones before it left: those after it get nothing.
            break;
        }
        match available.iter().find(|candidate| short(candidate) == name) {
            Some(found) if !chosen.contains(&found.as_str()) => chosen.push(found.as_str()),
            Some(_) => {}
            None => {
                let there: Vec<String> = available.iter().map(|name| short(name)).collect();
                return Err(Error::precondition(format!(
                    "this build of ONNX Runtime has no execution provider \"{name}\"; it has: {}",
                    there.join(", ")
                )));
            }
        }
    }
    Ok(chosen)
}

/// Registers one provider, named as the library names it, with its default options.
pub(super) fn register(builder: &mut SessionBuilder, name: &str) -> Result<(), Error> {
    let failed =
        |error: ort::Error| explain(error.code(), error.message(), Doing::Loading).at(name);
    append(builder, name).map_err(failed)
}

fn append(builder: &mut SessionBuilder, name: &str) -> ort::Result<()> {
    let api = ort::api();
    let options = builder.ptr_mut();
    // SAFETY (all of it): the session options are valid while the builder is borrowed; each
    // provider's options are created, used and released here; every status is consumed once.
    unsafe {
        let check = |status| ort::Error::result_from_status(status);
        match name {
            "CUDAExecutionProvider" => {
                let mut cuda = ptr::null_mut();
                check((api.CreateCUDAProviderOptions)(&mut cuda))?;
                let appended =
                    check((api.SessionOptionsAppendExecutionProvider_CUDA_V2)(options, cuda));
                (api.ReleaseCUDAProviderOptions)(cuda);
                appended
            }
            "TensorrtExecutionProvider" => {
                let mut tensorrt = ptr::null_mut();
                check((api.CreateTensorRTProviderOptions)(&mut tensorrt))?;
                let appended = check((api.SessionOptionsAppendExecutionProvider_TensorRT_V2)(
                    options, tensorrt,
                ));
                (api.ReleaseTensorRTProviderOptions)(tensorrt);
                appended
            }
            "OpenVINOExecutionProvider" => check((api
                .SessionOptionsAppendExecutionProvider_OpenVINO_V2)(
                options,
                ptr::null(),
                ptr::null(),
                0,
            )),
            _ => {
                let name = std::ffi::CString::new(short_for_library(name)).unwrap_or_default();
                check((api.SessionOptionsAppendExecutionProvider)(
                    options,
                    name.as_ptr(),
                    ptr::null(),
                    ptr::null(),
                    0,
                ))
            }
        }
    }
}

/// The generic function takes most names without their ending, in the library's own case.
fn short_for_library(name: &str) -> &str {
    name.strip_suffix("ExecutionProvider").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_from(wanted: &[&str]) -> Result<Vec<String>, Error> {
        let available =
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"];
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let available = strings(&available);
        choose(&strings(wanted), &available)
            .map(|chosen| chosen.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn names_are_short_and_of_any_case() {
        assert_eq!(
            choose_from(&["CUDA", "tensorrt"]).unwrap(),
            ["CUDAExecutionProvider", "TensorrtExecutionProvider"]
        );
        assert_eq!(choose_from(&["CUDAExecutionProvider"]).unwrap(), ["CUDAExecutionProvider"]);
    }

    #[test]
    fn nothing_comes_after_the_processor_and_nothing_twice() {
        assert!(choose_from(&["cpu", "cuda"]).unwrap().is_empty());
        assert_eq!(choose_from(&["cuda", "cuda", "cpu"]).unwrap(), ["CUDAExecutionProvider"]);
    }

    #[test]
    fn one_that_is_not_there_is_refused_with_those_that_are() {
        let error = choose_from(&["cuda", "openvino"]).unwrap_err();
        assert_eq!(error.code(), model::ErrorCode::FailedPrecondition);
        let text = error.to_string();
        assert!(text.contains("\"openvino\"; it has: tensorrt, cuda, cpu"), "{text}");
    }
}

//! A model that ONNX Runtime has prepared.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Mutex, PoisonError, TryLockError};

use model::{Package, Tensor, TensorSpec};
use ort::AsPointer;
use ort::logging::LogLevel;
use ort::session::builder::{AutoDevicePolicy, SessionBuilder};
use ort::sys;

use crate::{Error, LoadOptions, Session};

use super::library::Library;
use super::message::{Doing, explain};
use super::program::{self, Source};
use super::providers;
use super::value::{Memory, Value, check};

/// A model that ONNX Runtime has prepared.
///
/// ONNX Runtime documents `Run` as safe to call from several threads on one session, and on the
/// processor it is: one session then serves all instances, and its weights are in memory once.
/// Other execution providers have broken that promise, so with them each instance has a session of
/// its own, used by one thread at a time.
pub(super) struct OrtSession {
    copies: Copies,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    memory: Memory,
    doing: Doing,
}

enum Copies {
    Shared(ort::session::Session),
    Exclusive(Vec<Mutex<ort::session::Session>>),
}

impl OrtSession {
    pub(super) fn load(
        library: &'static Library,
        package: &Package,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let chosen = providers::choose(&options.providers, &library.providers)?;
        let source = program::source(package);
        let load_one = || {
            let mut builder = configure(library, options).map_err(loading)?;
            for provider in &chosen {
                providers::register(&mut builder, provider)?;
            }
            match &source {
                Source::Memory(bytes) => builder.commit_from_memory(bytes),
                Source::File(path) => builder.commit_from_file(path),
            }
            .map_err(loading)
        };
        let first = load_one()?;
        let signature = &package.manifest.signature;
        let given = first.inputs().iter().map(|outlet| outlet.name().to_owned());
        let defaulted = first.overridable_initializers();
        let defaulted = defaulted.iter().map(|initializer| initializer.name().to_owned());
        let inputs = names(&signature.inputs, &given.chain(defaulted).collect::<Vec<_>>())?;
        let results = first.outputs().iter().map(|outlet| outlet.name().to_owned());
        let outputs = names(&signature.outputs, &results.collect::<Vec<_>>())?;
        let memory = Memory::new().map_err(loading)?;
        if chosen.is_empty() {
            return Ok(Self {
                copies: Copies::Shared(first),
                inputs,
                outputs,
                memory,
                doing: Doing::Running,
            });
        }
        let mut copies = vec![Mutex::new(first)];
        for _ in 1..options.instances.max(1) {
            copies.push(Mutex::new(load_one()?));
        }
        let copies = Copies::Exclusive(copies);
        Ok(Self { copies, inputs, outputs, memory, doing: Doing::RunningElsewhere })
    }

    fn failed(&self, error: &ort::Error) -> Error {
        explain(error.code(), error.message(), self.doing)
    }
}

/// The signature's names for ONNX Runtime, once it is sure to know them.
fn names(specs: &[TensorSpec], known: &[String]) -> Result<Vec<CString>, Error> {
    let convert = |spec: &TensorSpec| match CString::new(&*spec.name) {
        Ok(name) if known.iter().any(|known| **known == *spec.name) => Ok(name),
        _ => Err(Error::internal(format!(
            "ONNX Runtime knows no tensor \"{}\" in this model",
            spec.name
        ))),
    };
    specs.iter().map(convert).collect()
}

fn loading(error: ort::Error) -> Error {
    explain(error.code(), error.message(), Doing::Loading)
}

fn configure(library: &Library, options: &LoadOptions) -> ort::Result<SessionBuilder> {
    let all = tracing::enabled!(tracing::Level::TRACE);
    let builder = SessionBuilder::new(&library.environment)?
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_log_level(if all { LogLevel::Verbose } else { LogLevel::Error })?
        .with_intra_threads(options.threads.max(1))?
        // Threads that wait for work by spinning take a processor from the other instances: on
        // two busy processors the same run costs twice the time.
        .with_intra_op_spinning(false)?
        // Memory patterns are kept for every batch size ever seen, and never given back. The arena
        // stays: it goes with the session, and without it batches of 32 cost 5 % more and hold
        // half as much memory again.
        .with_memory_pattern(false)?
        .with_device_allocated_initializers()?;
    Ok(builder)
}

impl Session for OrtSession {
    fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
        let run = |session: *const sys::OrtSession| {
            self.run_on(session.cast_mut(), inputs).map_err(|error| self.failed(&error))
        };
        match &self.copies {
            Copies::Shared(session) => run(session.ptr()),
            Copies::Exclusive(copies) => {
                // There are as many copies as callers: one is free, or soon will be.
                for copy in copies {
                    match copy.try_lock() {
                        Ok(session) => return run(session.ptr()),
                        Err(TryLockError::Poisoned(session)) => {
                            return run(session.into_inner().ptr());
                        }
                        Err(TryLockError::WouldBlock) => {}
                    }
                }
                run(copies[0].lock().unwrap_or_else(PoisonError::into_inner).ptr())
            }
        }
    }
}

impl OrtSession {
    fn run_on(
        &self,
        session: *mut sys::OrtSession,
        inputs: &[Option<&Tensor>],
    ) -> ort::Result<Vec<Tensor>> {
        let given =
            self.inputs.iter().zip(inputs).filter_map(|(name, input)| Some((name, (*input)?)));
        let mut names: Vec<*const c_char> = Vec::with_capacity(inputs.len());
        let mut lent = Vec::with_capacity(inputs.len());
        for (name, tensor) in given {
            names.push(name.as_ptr());
            lent.push(Value::lend(tensor, &self.memory)?);
        }
        let values: Vec<*const sys::OrtValue> = lent.iter().map(Value::as_ptr).collect();
        let wanted: Vec<*const c_char> = self.outputs.iter().map(|name| name.as_ptr()).collect();
        let mut results = vec![ptr::null_mut(); wanted.len()];
        // SAFETY: the session is alive (it is ours); names and values are as many as their counts
        // say and alive until the call returns; no value of ours is written to.
        let status = unsafe {
            (ort::api().Run)(
                session,
                ptr::null(),
                names.as_ptr(),
                values.as_ptr(),
                values.len(),
                wanted.as_ptr(),
                wanted.len(),
                results.as_mut_ptr(),
            )
        };
        // Own every result before looking at any, so that none is lost when one is refused.
        let results: Vec<ort::Result<Value>> =
            results.into_iter().map(Value::from_output).collect();
        check(status)?;
        results.into_iter().map(|value| value?.read()).collect()
    }
}

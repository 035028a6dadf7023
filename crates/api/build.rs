//! Compiles the protocol files to Rust, in Rust: a build needs no `protoc`.

use std::path::PathBuf;

use protox::prost::Message;

const FILES: [&str; 5] = [
    "inference.proto",
    "model_config.proto",
    "tensorflow.proto",
    "tensorflow_error.proto",
    "tensorflow_serving.proto",
];

/// The packages whose `bytes` fields are views of the message's buffer, not copied out of it.
const BORROWED: [&str; 2] = [".inference", ".tensorflow"];

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by the environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    let descriptors = compiler.include_imports(true).open_files(FILES)?.file_descriptor_set();
    // For reflection.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let mut builder = tonic_prost_build::configure().build_transport(false);
    for path in BORROWED {
        builder = builder.bytes(path);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}

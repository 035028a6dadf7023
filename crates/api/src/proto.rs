//! The protocols' messages, services and clients, generated from `crates/api/proto`.
//!
//! Fields that hold tensors are [`bytes::Bytes`]: views of the buffer that the message came in.
#![allow(missing_docs, clippy::all)]

/// Open Inference Protocol v2 and Triton's extensions.
pub mod inference {
    tonic::include_proto!("inference");
}

/// The parts of TensorFlow's messages that its serving protocol uses.
pub mod tensorflow {
    tonic::include_proto!("tensorflow");

    /// Status codes.
    pub mod error {
        tonic::include_proto!("tensorflow.error");
    }

    /// TensorFlow Serving.
    pub mod serving {
        tonic::include_proto!("tensorflow.serving");
    }
}

/// An encoded `google.protobuf.FileDescriptorSet` of all of the above, as reflection serves it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

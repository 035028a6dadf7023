//! A model's configuration and metadata, as Triton's messages.

use model::{DataType, TensorSpec};
use serving::ModelInfo;

use crate::proto::inference as pb;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::rest;

pub(super) fn metadata(info: &ModelInfo, versions: Vec<String>) -> pb::ModelMetadataResponse {
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.datatype.to_string(),
        shape: spec.extents(),
    };
    pb::ModelMetadataResponse {
        name: info.name.to_string(),
        versions,
        platform: rest::platform(info),
        inputs: info.signature.inputs.iter().map(tensor).collect(),
        outputs: info.signature.outputs.iter().map(tensor).collect(),
    }
}

pub(super) fn config(info: &ModelInfo) -> pb::ModelConfig {
    // Triton leaves the batch dimension out of a model that it may batch.
    let batched = info.max_batch_size > 0;
    let dims = |spec: &TensorSpec| {
        let extents = spec.extents();
        if batched { extents.get(1..).unwrap_or_default().to_vec() } else { extents }
    };
    let input = |spec: &TensorSpec| pb::ModelInput {
        name: spec.name.to_string(),
        data_type: datatype(spec.datatype).into(),
        dims: dims(spec),
        optional: spec.optional,
        ..Default::default()
    };
    let output = |spec: &TensorSpec| pb::ModelOutput {
        name: spec.name.to_string(),
        data_type: datatype(spec.datatype).into(),
        dims: dims(spec),
        ..Default::default()
    };
    let instances = pb::ModelInstanceGroup {
        name: format!("{}_0", info.name),
        kind: pb::model_instance_group::Kind::Cpu.into(),
        count: info.settings.instances.unwrap_or(1).try_into().unwrap_or(i32::MAX),
        ..Default::default()
    };
    let batching = pb::model_config::SchedulingChoice::DynamicBatching(Default::default());
    pb::ModelConfig {
        name: info.name.to_string(),
        platform: rest::platform(info),
        backend: info.engine.into(),
        max_batch_size: info.max_batch_size.try_into().unwrap_or(i32::MAX),
        input: info.signature.inputs.iter().map(input).collect(),
        output: info.signature.outputs.iter().map(output).collect(),
        instance_group: vec![instances],
        scheduling_choice: batched.then_some(batching),
        ..Default::default()
    }
}

const fn datatype(datatype: DataType) -> pb::DataType {
    match datatype {
        DataType::Bool => pb::DataType::TypeBool,
        DataType::Uint8 => pb::DataType::TypeUint8,
        DataType::Uint16 => pb::DataType::TypeUint16,
        DataType::Uint32 => pb::DataType::TypeUint32,
        DataType::Uint64 => pb::DataType::TypeUint64,
        DataType::Int8 => pb::DataType::TypeInt8,
        DataType::Int16 => pb::DataType::TypeInt16,
        DataType::Int32 => pb::DataType::TypeInt32,
        DataType::Int64 => pb::DataType::TypeInt64,
        DataType::Fp16 => pb::DataType::TypeFp16,
        DataType::Bf16 => pb::DataType::TypeBf16,
        DataType::Fp32 => pb::DataType::TypeFp32,
        DataType::Fp64 => pb::DataType::TypeFp64,
        DataType::Bytes => pb::DataType::TypeString,
    }
}

//! TensorFlow Serving: `PredictionService` and `ModelService`.

mod models;
mod tensor;

use std::collections::HashMap;
use std::sync::Arc;

use model::{ErrorCode, TensorSpec};
use prost::Message;
use serving::{Chosen, Error, ModelInfo, Protocol, Reply, Target};
use tonic::{Request, Response, Status};

use super::{Call, of_error, trailing};
use crate::proto::tensorflow as tf;
use crate::proto::tensorflow::serving as pb;
use crate::proto::tensorflow::serving::inference_result::Result as TaskResult;
use crate::proto::tensorflow::serving::input::Kind as InputKind;
use crate::proto::tensorflow::serving::model_spec::VersionChoice;
use crate::proto::tensorflow::serving::prediction_service_server::PredictionService;
use crate::refusals::invalid;
use crate::tensorflow::{self, Choice, SIGNATURE, check_signature, describe, find};
use crate::{Api, examples, trace};

pub(super) use models::Models;

const CLASSIFY: &str = "tensorflow/serving/classify";
const REGRESS: &str = "tensorflow/serving/regress";
const PREDICT: &str = "tensorflow/serving/predict";

pub(super) struct Predictions {
    api: Arc<Api>,
}

impl Predictions {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl PredictionService for Predictions {
    async fn predict(
        &self,
        request: Request<pb::PredictRequest>,
    ) -> Result<Response<pb::PredictResponse>, Status> {
        let call = Call::read(request.metadata()).map_err(of_error)?;
        let mut reply = predict(&self.api, request.into_inner(), call).await.map_err(of_error)?;
        let outputs = std::mem::take(&mut reply.outputs);
        let names = &reply.info.signature.outputs;
        let named = |(position, tensor): (usize, _)| {
            (names[position].name.to_string(), tensor::encode(tensor))
        };
        let model_spec = Some(model_spec(&reply.info));
        let outputs = outputs.into_iter().map(named).collect();
        Ok(respond(pb::PredictResponse { model_spec, outputs }, &reply))
    }

    async fn classify(
        &self,
        request: Request<pb::ClassificationRequest>,
    ) -> Result<Response<pb::ClassificationResponse>, Status> {
        let call = Call::read(request.metadata()).map_err(of_error)?;
        let pb::ClassificationRequest { model_spec: spec, input } = request.into_inner();
        let (reply, rows) =
            run_examples(&self.api, spec.as_ref(), input, call).await.map_err(of_error)?;
        let result = Some(classifications(&reply, rows).map_err(of_error)?);
        let model_spec = Some(model_spec(&reply.info));
        Ok(respond(pb::ClassificationResponse { model_spec, result }, &reply))
    }

    async fn regress(
        &self,
        request: Request<pb::RegressionRequest>,
    ) -> Result<Response<pb::RegressionResponse>, Status> {
        let call = Call::read(request.metadata()).map_err(of_error)?;
        let pb::RegressionRequest { model_spec: spec, input } = request.into_inner();
        let (reply, rows) =
            run_examples(&self.api, spec.as_ref(), input, call).await.map_err(of_error)?;
        let result = Some(regressions(&reply, rows).map_err(of_error)?);
        let model_spec = Some(model_spec(&reply.info));
        Ok(respond(pb::RegressionResponse { model_spec, result }, &reply))
    }

    async fn multi_inference(
        &self,
        request: Request<pb::MultiInferenceRequest>,
    ) -> Result<Response<pb::MultiInferenceResponse>, Status> {
        let call = Call::read(request.metadata()).map_err(of_error)?;
        let pb::MultiInferenceRequest { tasks, input } = request.into_inner();
        let spec = one_model(&tasks).map_err(of_error)?;
        // The tasks differ only in how they read the same answer: the model runs once.
        let (reply, rows) =
            run_examples(&self.api, Some(spec), input, call).await.map_err(of_error)?;
        let result = |task: &pb::InferenceTask| {
            let result = match &*task.method_name {
                CLASSIFY => TaskResult::ClassificationResult(classifications(&reply, rows)?),
                _ => TaskResult::RegressionResult(regressions(&reply, rows)?),
            };
            let model_spec = Some(model_spec(&reply.info));
            Ok(pb::InferenceResult { model_spec, result: Some(result) })
        };
        let results: Result<Vec<_>, Error> = tasks.iter().map(result).collect();
        let results = results.map_err(of_error)?;
        Ok(respond(pb::MultiInferenceResponse { results }, &reply))
    }

    async fn get_model_metadata(
        &self,
        request: Request<pb::GetModelMetadataRequest>,
    ) -> Result<Response<pb::GetModelMetadataResponse>, Status> {
        let of = request.into_inner();
        let field = "signature_def";
        if of.metadata_field.is_empty() {
            let message = format!("no metadata_field is named; there is {field}");
            return Err(of_error(invalid(message)));
        }
        if let Some(other) = of.metadata_field.iter().find(|name| *name != field) {
            let message = format!("metadata field \"{other}\" is not supported; there is {field}");
            return Err(of_error(invalid(message)));
        }
        let (spec, choice) = named(of.model_spec.as_ref()).map_err(of_error)?;
        let info = describe(&self.api.serving, &spec.name, &choice).await.map_err(of_error)?;
        check_signature(&spec.signature_name).map_err(of_error)?;
        let signatures = pb::SignatureDefMap {
            signature_def: HashMap::from([(SIGNATURE.into(), signature_def(&info))]),
        };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/tensorflow.serving.SignatureDefMap".into(),
            value: signatures.encode_to_vec(),
        };
        Ok(Response::new(pb::GetModelMetadataResponse {
            model_spec: Some(pb::ModelSpec { signature_name: String::new(), ..model_spec(&info) }),
            metadata: HashMap::from([(field.into(), any)]),
        }))
    }
}

/// An answer, and how it came about.
fn respond<T>(answer: T, reply: &Reply) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(trailing(reply));
    response
}

async fn predict(api: &Api, mut request: pb::PredictRequest, call: Call) -> Result<Reply, Error> {
    let spec = request.model_spec.take();
    let answered = run_predict(api, spec.as_ref(), request, call).await;
    answered.map_err(|error| count(api, spec.as_ref(), error))
}

/// Counts a request that an error ended, unless it has been.
fn count(api: &Api, spec: Option<&pb::ModelSpec>, error: Error) -> Error {
    if !error.is_counted() {
        let name = spec.map_or("", |spec| &spec.name);
        api.serving.refuse(name, Protocol::TfsGrpc, error.code());
    }
    error
}

async fn run_predict(
    api: &Api,
    spec: Option<&pb::ModelSpec>,
    request: pb::PredictRequest,
    call: Call,
) -> Result<Reply, Error> {
    let (target, chosen) = choose(api, spec, call).await?;
    let limit = api.options.max_body_bytes;
    let decode = |(name, tensor): (String, _)| {
        let tensor = tensor::decode(&name, tensor, limit)?;
        Ok((name, tensor))
    };
    let inputs: Result<Vec<_>, Error> = request.inputs.into_iter().map(decode).collect();
    let request = serving::Request { inputs: inputs?, outputs: request.output_filter, ..target };
    trace::answer(&api.serving, chosen, request).await
}

/// Runs a model on examples; the reply and how many examples there were.
async fn run_examples(
    api: &Api,
    spec: Option<&pb::ModelSpec>,
    input: Option<pb::Input>,
    call: Call,
) -> Result<(Reply, usize), Error> {
    let answered = run_on(api, spec, input, call).await;
    answered.map_err(|error| count(api, spec, error))
}

async fn run_on(
    api: &Api,
    spec: Option<&pb::ModelSpec>,
    input: Option<pb::Input>,
    call: Call,
) -> Result<(Reply, usize), Error> {
    let (target, chosen) = choose(api, spec, call).await?;
    let (examples, context) = match input.and_then(|input| input.kind) {
        Some(InputKind::ExampleList(list)) => (list.examples, None),
        Some(InputKind::ExampleListWithContext(list)) => (list.examples, list.context),
        None => (Vec::new(), None),
    };
    let limit = api.options.max_body_bytes;
    let signature = &chosen.info().signature;
    let inputs = examples::inputs(signature, &examples, context.as_ref(), limit)?;
    let request = serving::Request { inputs, ..target };
    Ok((trace::answer(&api.serving, chosen, request).await?, examples.len()))
}

/// A request without inputs, and the version that is to answer it.
async fn choose(
    api: &Api,
    spec: Option<&pb::ModelSpec>,
    call: Call,
) -> Result<(serving::Request, Chosen), Error> {
    let (spec, choice) = named(spec)?;
    let choice = choice.or_of(&call.caller)?;
    let target = Target {
        model: &spec.name,
        version: choice.version(),
        key: call.caller.key.as_deref(),
        deadline: call.deadline,
        protocol: Protocol::TfsGrpc,
    };
    let chosen = find(&api.serving, target, &choice).await?;
    check_signature(&spec.signature_name)?;
    Ok((tensorflow::request(target), chosen))
}

/// The model and version that a request names.
fn named(spec: Option<&pb::ModelSpec>) -> Result<(&pb::ModelSpec, Choice), Error> {
    let spec = spec.filter(|spec| !spec.name.is_empty());
    let spec = spec.ok_or_else(|| invalid("model_spec names no model"))?;
    let choice = match &spec.version_choice {
        None => Choice::Latest,
        Some(VersionChoice::Version(number)) => Choice::Version(number.to_string()),
        Some(VersionChoice::VersionLabel(label)) => Choice::Label(label.clone()),
    };
    Ok((spec, choice))
}

/// The model and version that answered. A version that is no number is a label.
fn model_spec(info: &ModelInfo) -> pb::ModelSpec {
    pb::ModelSpec {
        name: info.name.to_string(),
        version_choice: Some(match info.version.parse() {
            Ok(number) => VersionChoice::Version(number),
            Err(_) => VersionChoice::VersionLabel(info.version.to_string()),
        }),
        signature_name: SIGNATURE.into(),
    }
}

/// The one model that every task of a request is about.
fn one_model(tasks: &[pb::InferenceTask]) -> Result<&pb::ModelSpec, Error> {
    let mut first: Option<&pb::ModelSpec> = None;
    for task in tasks {
        if !matches!(&*task.method_name, CLASSIFY | REGRESS) {
            let message = format!(
                "method \"{}\" is not known; there are {CLASSIFY} and {REGRESS}",
                task.method_name
            );
            return Err(Error::new(ErrorCode::Unimplemented, message));
        }
        let spec = task.model_spec.as_ref().ok_or_else(|| invalid("a task names no model"))?;
        check_signature(&spec.signature_name)?;
        let first = first.get_or_insert(spec);
        if (&first.name, &first.version_choice) != (&spec.name, &spec.version_choice) {
            return Err(invalid("all tasks of a request have to name the same model and version"));
        }
    }
    first.ok_or_else(|| invalid("there are no tasks; a request has at least one"))
}

fn classifications(reply: &Reply, rows: usize) -> Result<pb::ClassificationResult, Error> {
    let class = |(label, score)| pb::Class { label, score };
    let row = |classes: Vec<examples::Class>| pb::Classifications {
        classes: classes.into_iter().map(class).collect(),
    };
    let classifications = examples::classifications(reply, rows)?.into_iter().map(row).collect();
    Ok(pb::ClassificationResult { classifications })
}

fn regressions(reply: &Reply, rows: usize) -> Result<pb::RegressionResult, Error> {
    let regressions = examples::regressions(reply, rows)?.into_iter();
    let regressions = regressions.map(|value| pb::Regression { value }).collect();
    Ok(pb::RegressionResult { regressions })
}

fn signature_def(info: &ModelInfo) -> tf::SignatureDef {
    let tensor = |spec: &TensorSpec| {
        let dim = |extent: i64| tf::tensor_shape_proto::Dim { size: extent, ..Default::default() };
        let shape = tf::TensorShapeProto {
            dim: spec.shape.iter().flatten().map(|d| dim(d.extent())).collect(),
            unknown_rank: spec.shape.is_none(),
        };
        let tensor = tf::TensorInfo {
            dtype: tensor::dtype(spec.datatype).into(),
            tensor_shape: Some(shape),
            // TensorFlow's graphs number a node's outputs; clients only show it.
            encoding: Some(tf::tensor_info::Encoding::Name(format!("{}:0", spec.name))),
        };
        (spec.name.to_string(), tensor)
    };
    tf::SignatureDef {
        inputs: info.signature.inputs.iter().map(tensor).collect(),
        outputs: info.signature.outputs.iter().map(tensor).collect(),
        method_name: PREDICT.into(),
    }
}

#[cfg(test)]
pub(super) mod fuzz {
    pub(crate) use super::tensor::decode as tensor;
}

//! `inference.GRPCInferenceService`: the Open Inference Protocol and Triton's extensions.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::ErrorCode;
use serving::{Error, Protocol, Reply};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::status::status;
use super::{Call, config, deadline, of_error, statistics, tensor, trailing};
use crate::proto::inference as pb;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::inference::infer_parameter::ParameterChoice;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::refusals::{self, WHOLE_NUMBER, invalid};
use crate::repository::{self, Parameter, only_repository};
use crate::{Api, Load, binary, rest, trace};

/// The most requests of one stream that are worked on side by side.
const STREAM_WIDTH: usize = 64;

pub(super) struct Inference {
    api: Arc<Api>,
}

impl Inference {
    pub(super) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.api.serving.ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(pb::ServerMetadataResponse {
            name: self.api.options.server_name.clone(),
            version: self.api.options.server_version.clone(),
            extensions: rest::EXTENSIONS.map(Into::into).to_vec(),
        }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let of = request.into_inner();
        let ready = match self.api.serving.check(&of.name, version(&of.version)) {
            Ok(()) => true,
            Err(error) if error.code() == ErrorCode::Unavailable => false,
            Err(error) => return Err(status(&error)),
        };
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let of = request.into_inner();
        let info =
            self.api.serving.model(&of.name, version(&of.version)).await.map_err(of_error)?;
        let all = self.api.serving.status_of(&info.name).into_iter();
        let ready = all.filter(|s| s.state.answers());
        let versions = ready.map(|s| s.version.to_string()).collect();
        Ok(Response::new(config::metadata(&info, versions)))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let call = Call::read(request.metadata()).map_err(|error| {
            self.api.serving.refuse(&request.get_ref().model_name, Protocol::Grpc, error.code());
            of_error(error)
        })?;
        let (answer, trailing) =
            infer(&self.api, request.into_inner(), &call).await.map_err(of_error)?;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(trailing);
        Ok(response)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let call = Call::read(request.metadata()).map_err(of_error)?;
        let (sender, receiver) = mpsc::channel(STREAM_WIDTH);
        tokio::spawn(stream(Arc::clone(&self.api), request.into_inner(), call, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let of = request.into_inner();
        let info =
            self.api.serving.model(&of.name, version(&of.version)).await.map_err(of_error)?;
        Ok(Response::new(pb::ModelConfigResponse { config: Some(config::config(&info)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let of = request.into_inner();
        let name = (!of.name.is_empty()).then_some(&*of.name);
        if let Some(name) = name {
            self.api.serving.check(name, version(&of.version)).map_err(of_error)?;
        }
        let all = self.api.serving.statistics(name, version(&of.version));
        let model_stats = all.iter().map(statistics::statistics).collect();
        Ok(Response::new(pb::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        let of = request.into_inner();
        only_repository(&of.repository_name).map_err(of_error)?;
        let models = repository::index(&self.api, of.ready).into_iter().map(index_entry).collect();
        Ok(Response::new(pb::RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        let of = request.into_inner();
        only_repository(&of.repository_name).map_err(of_error)?;
        let overrides = load_parameters(of.parameters).map_err(of_error)?;
        repository::load(&self.api, &of.model_name, overrides).await.map_err(of_error)?;
        Ok(Response::new(pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        let of = request.into_inner();
        only_repository(&of.repository_name).map_err(of_error)?;
        for name in of.parameters.keys() {
            repository::check_unload_parameter(name).map_err(of_error)?;
        }
        repository::unload(&self.api, &of.model_name).await.map_err(of_error)?;
        Ok(Response::new(pb::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryStatusResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryRegisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryUnregisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryStatusResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryRegisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryUnregisterResponse>, Status> {
        Err(no_shared_memory())
    }

    async fn trace_setting(
        &self,
        _: Request<pb::TraceSettingRequest>,
    ) -> Result<Response<pb::TraceSettingResponse>, Status> {
        Err(Status::unimplemented("tracing cannot be set through the protocol"))
    }

    async fn log_settings(
        &self,
        _: Request<pb::LogSettingsRequest>,
    ) -> Result<Response<pb::LogSettingsResponse>, Status> {
        Err(Status::unimplemented("logging cannot be set through the protocol"))
    }
}

/// Decodes a request, has it answered and encodes the answer.
async fn infer(
    api: &Api,
    mut message: pb::ModelInferRequest,
    call: &Call,
) -> Result<(pb::ModelInferResponse, super::Trailing), Error> {
    let model = std::mem::take(&mut message.model_name);
    let (request, classes) = match decode(message, call) {
        Ok(decoded) => decoded,
        Err(error) => {
            api.serving.refuse(&model, Protocol::Grpc, error.code());
            return Err(error);
        }
    };
    let reply = trace::infer(&api.serving, serving::Request { model, ..request }).await?;
    let trailing = trailing(&reply);
    Ok((encode(reply, &classes), trailing))
}

/// The request that a message is, but for the model's name; and for each output that is wanted as
/// classes, how many.
fn decode(
    message: pb::ModelInferRequest,
    call: &Call,
) -> Result<(serving::Request, HashMap<String, usize>), Error> {
    let parameters = Parameters::read(&message.parameters)?;
    let classes = classes(&message.outputs)?;
    let request = serving::Request {
        model: String::new(),
        version: call.caller.version(version(&message.model_version))?,
        key: call.caller.key.clone(),
        id: Some(message.id).filter(|id| !id.is_empty()),
        inputs: tensor::inputs(message.inputs, message.raw_input_contents)?,
        outputs: message.outputs.into_iter().map(|output| output.name).collect(),
        priority: parameters.priority,
        deadline: deadline::earlier(call.deadline, parameters.deadline),
        protocol: Protocol::Grpc,
    };
    Ok((request, classes))
}

/// For each output that is wanted as classes, how many.
fn classes(
    outputs: &[pb::model_infer_request::InferRequestedOutputTensor],
) -> Result<HashMap<String, usize>, Error> {
    let mut classes = HashMap::new();
    for output in outputs {
        let what = format!("output \"{}\"", output.name);
        tensor::no_shared_memory(&what, &output.parameters)?;
        let count = whole(&output.parameters, "classification");
        let count = count.map_err(|error| invalid(format!("{what}: {error}")))?;
        if let Some(count) = count.filter(|count| *count > 0) {
            classes.insert(output.name.clone(), usize::try_from(count).unwrap_or(usize::MAX));
        }
    }
    Ok(classes)
}

fn encode(reply: Reply, classes: &HashMap<String, usize>) -> pb::ModelInferResponse {
    let signature = &reply.info.signature;
    let batched = reply.info.max_batch_size > 0;
    let mut outputs = Vec::with_capacity(reply.outputs.len());
    let mut raw_output_contents = Vec::with_capacity(reply.outputs.len());
    for (position, tensor) in reply.outputs {
        let spec = &signature.outputs[position];
        let tensor = match classes.get(&*spec.name) {
            Some(count) => rest::classify(&tensor, spec, *count, batched),
            None => tensor,
        };
        outputs.push(InferOutputTensor {
            name: spec.name.to_string(),
            datatype: tensor.datatype().to_string(),
            shape: tensor.shape().iter().map(|extent| *extent as i64).collect(),
            ..Default::default()
        });
        raw_output_contents.push(binary::into_bytes(tensor.into_parts().1));
    }
    pb::ModelInferResponse {
        model_name: reply.info.name.to_string(),
        model_version: reply.info.version.to_string(),
        id: reply.id.unwrap_or_default(),
        outputs,
        raw_output_contents,
        ..Default::default()
    }
}

/// The parameters of a request that mean something here; others are the caller's own affair.
struct Parameters {
    priority: u32,
    deadline: Option<Instant>,
}

impl Parameters {
    fn read(parameters: &HashMap<String, pb::InferParameter>) -> Result<Self, Error> {
        if parameters.is_empty() {
            return Ok(Self { priority: 0, deadline: None });
        }
        // 0 and "" mean that there is none.
        let none = [ParameterChoice::StringParam(String::new()), ParameterChoice::Int64Param(0)];
        let sequence = parameters.get("sequence_id").and_then(|id| id.parameter_choice.as_ref());
        if sequence.is_some_and(|id| *id != ParameterChoice::Uint64Param(0) && !none.contains(id)) {
            return Err(refusals::sequence());
        }
        let priority = whole(parameters, "priority")?.unwrap_or(0);
        let timeout = whole(parameters, "timeout")?.filter(|microseconds| *microseconds > 0);
        let timeout = timeout.map(Duration::from_micros);
        Ok(Self {
            priority: u32::try_from(priority).unwrap_or(u32::MAX),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        })
    }
}

/// A parameter that has to be a whole number, 0 or more.
fn whole(
    parameters: &HashMap<String, pb::InferParameter>,
    name: &str,
) -> Result<Option<u64>, Error> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let got = match &parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) if *number >= 0 => {
            return Ok(Some(number.unsigned_abs()));
        }
        Some(ParameterChoice::Uint64Param(number)) => return Ok(Some(*number)),
        Some(ParameterChoice::Int64Param(number)) => format!("the number {number}"),
        Some(ParameterChoice::DoubleParam(number)) => format!("the number {number}"),
        Some(ParameterChoice::BoolParam(value)) => value.to_string(),
        Some(ParameterChoice::StringParam(text)) => format!("the string {}", rest::quote(text)),
        None => "nothing".into(),
    };
    Err(invalid(format!("parameter \"{name}\": expected {WHOLE_NUMBER}, got {got}")))
}

/// Answers the requests of a stream as each is done, until the caller has no more or goes away.
async fn stream(
    api: Arc<Api>,
    mut requests: Streaming<pb::ModelInferRequest>,
    call: Call,
    answers: mpsc::Sender<Result<pb::ModelStreamInferResponse, Status>>,
) {
    let mut running = JoinSet::new();
    loop {
        let request = tokio::select! {
            // Dropping the set stops what is still running.
            () = answers.closed() => return,
            Some(_) = running.join_next() => continue,
            request = requests.message(), if running.len() < STREAM_WIDTH => request,
        };
        match request {
            Ok(Some(request)) => {
                let (api, call, answers) = (Arc::clone(&api), call.clone(), answers.clone());
                running.spawn(async move {
                    // An error means that the caller has gone.
                    let _ = answers.send(Ok(stream_answer(&api, request, &call).await)).await;
                });
            }
            Ok(None) => break,
            Err(status) => {
                let _ = answers.send(Err(status)).await;
                return;
            }
        }
    }
    loop {
        tokio::select! {
            () = answers.closed() => return,
            done = running.join_next() => if done.is_none() { return },
        }
    }
}

/// One answer in a stream. A request that fails does not end the stream: its error is an answer.
async fn stream_answer(
    api: &Api,
    request: pb::ModelInferRequest,
    call: &Call,
) -> pb::ModelStreamInferResponse {
    let (name, id) = (request.model_name.clone(), request.id.clone());
    match infer(api, request, call).await {
        Ok((mut answer, _)) => {
            // Every request has one answer; clients that wait for a model's last one look here.
            let last =
                pb::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            answer.parameters.insert("triton_final_response".into(), last);
            pb::ModelStreamInferResponse { infer_response: Some(answer), ..Default::default() }
        }
        Err(error) => pb::ModelStreamInferResponse {
            error_message: error.to_string(),
            infer_response: Some(pb::ModelInferResponse {
                model_name: name,
                id,
                ..Default::default()
            }),
        },
    }
}

fn load_parameters(
    parameters: HashMap<String, pb::ModelRepositoryParameter>,
) -> Result<Load, Error> {
    use pb::model_repository_parameter::ParameterChoice;
    let mut load = Load::default();
    for (name, parameter) in parameters {
        let parameter = match parameter.parameter_choice {
            Some(ParameterChoice::StringParam(text)) => Parameter::Text(text),
            Some(ParameterChoice::BytesParam(contents)) => Parameter::Contents(contents),
            _ => Parameter::Other,
        };
        repository::add_parameter(&mut load, &name, parameter)?;
    }
    Ok(load)
}

fn index_entry(of: repository::Entry) -> pb::repository_index_response::ModelIndex {
    let repository::Entry { name, version, state, reason } = of;
    pb::repository_index_response::ModelIndex { name, version, state: state.into(), reason }
}

/// A version that is named.
fn version(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn no_shared_memory() -> Status {
    Status::unimplemented("shared memory is not supported; send the tensors themselves")
}

#[cfg(test)]
pub(super) mod fuzz {
    use super::*;

    pub(crate) fn infer(
        message: pb::ModelInferRequest,
    ) -> Result<Vec<(String, model::Tensor)>, Error> {
        Parameters::read(&message.parameters)?;
        classes(&message.outputs)?;
        tensor::inputs(message.inputs, message.raw_input_contents)
    }
}

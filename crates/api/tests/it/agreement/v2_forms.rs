//! A request of the Open Inference Protocol, and the five ways to send it.

use std::collections::HashMap;
use std::fmt::Write;

use api::proto::inference as pb;
use bytes::Bytes;
use pb::infer_parameter::ParameterChoice;
use pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;

use super::{Outcome, STREAM, grpc_metadata, grpc_refusal, rest_metadata, rest_refusal};
use crate::support::{Grpc, Server};

/// How a request is sent, and its answer had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// REST, all in JSON.
    Json,
    /// REST with the binary extension, in and out.
    Binary,
    /// gRPC with typed contents.
    Typed,
    /// gRPC with raw contents.
    Raw,
    /// The same in a stream.
    Stream,
}

pub(super) const FORMS: [Form; 5] =
    [Form::Json, Form::Binary, Form::Typed, Form::Raw, Form::Stream];

/// A request as its sender thinks of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    pub model: &'static str,
    pub version: Option<&'static str>,
    pub id: Option<&'static str>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<(&'static str, Vec<Parameter>)>,
    pub parameters: Vec<Parameter>,
    /// Milliseconds that the caller waits, as each protocol says it in its head.
    pub timeout: Option<u64>,
    /// Headers, or metadata.
    pub headers: Vec<(&'static str, String)>,
}

pub(super) type Parameter = (&'static str, Value);

#[derive(Clone, Debug)]
pub(super) struct Input {
    pub name: String,
    pub datatype: &'static str,
    pub shape: Vec<i64>,
    pub values: Values,
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Debug)]
pub(super) enum Values {
    Floats(Vec<f64>),
    Whole(Vec<i64>),
    Texts(Vec<&'static str>),
    /// No data at all.
    Absent,
}

/// An input.
pub(super) fn input(name: &str, datatype: &'static str, shape: &[i64], values: Values) -> Input {
    let (name, shape) = (name.to_owned(), shape.to_vec());
    Input { name, datatype, shape, values, parameters: Vec::new() }
}

/// FP32 values.
pub(super) fn floats(name: &str, shape: &[i64], values: &[f64]) -> Input {
    input(name, "FP32", shape, Values::Floats(values.to_vec()))
}

impl Input {
    fn json(&self, form: Form, blobs: &mut Vec<u8>) -> String {
        let mut parameters = self.parameters.clone();
        let mut data = String::new();
        match &self.values {
            Values::Absent => {}
            _ if form == Form::Binary => {
                let blob = self.bytes();
                parameters.push(("binary_data_size", blob.len().into()));
                blobs.extend_from_slice(&blob);
            }
            Values::Floats(values) => {
                let texts: Vec<String> = values.iter().map(|v| number(*v)).collect();
                data = format!(r#","data":[{}]"#, texts.join(","));
            }
            Values::Whole(values) => data = format!(r#","data":{}"#, json!(values)),
            Values::Texts(values) => data = format!(r#","data":{}"#, json!(values)),
        }
        format!(
            r#"{{"name":{},"datatype":{},"shape":{},"parameters":{}{data}}}"#,
            json!(self.name),
            json!(self.datatype),
            json!(self.shape),
            object(&parameters)
        )
    }

    fn bytes(&self) -> Vec<u8> {
        match (&self.values, self.datatype) {
            (Values::Floats(values), "FP64") => {
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
            (Values::Floats(values), _) => {
                values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()
            }
            (Values::Whole(values), "INT64") => {
                values.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
            (Values::Whole(values), _) => {
                values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect()
            }
            (Values::Texts(values), _) => {
                let one =
                    |text: &&str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
                values.iter().flat_map(one).collect()
            }
            (Values::Absent, _) => Vec::new(),
        }
    }

    fn contents(&self) -> Option<pb::InferTensorContents> {
        let mut contents = pb::InferTensorContents::default();
        match (&self.values, self.datatype) {
            (Values::Floats(values), "FP64") => contents.fp64_contents = values.clone(),
            (Values::Floats(values), _) => {
                contents.fp32_contents = values.iter().map(|v| *v as f32).collect();
            }
            (Values::Whole(values), "INT64") => contents.int64_contents = values.clone(),
            (Values::Whole(values), _) => {
                contents.int_contents = values.iter().map(|v| *v as i32).collect();
            }
            (Values::Texts(values), _) => {
                let bytes = |text: &&'static str| Bytes::from_static(text.as_bytes());
                contents.bytes_contents = values.iter().map(bytes).collect();
            }
            (Values::Absent, _) => return None,
        }
        Some(contents)
    }
}

/// As Python's `json` writes it.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        value if value.is_infinite() => (if value > 0.0 { "Infinity" } else { "-Infinity" }).into(),
        value => format!("{value:?}"),
    }
}

fn object(parameters: &[Parameter]) -> Value {
    parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn messages(parameters: &[Parameter]) -> HashMap<String, pb::InferParameter> {
    let choice = |value: &Value| match value {
        Value::Bool(value) => ParameterChoice::BoolParam(*value),
        Value::String(text) => ParameterChoice::StringParam(text.clone()),
        other => match (other.as_i64(), other.as_u64(), other.as_f64()) {
            (Some(number), ..) => ParameterChoice::Int64Param(number),
            (_, Some(number), _) => ParameterChoice::Uint64Param(number),
            (.., number) => ParameterChoice::DoubleParam(number.unwrap()),
        },
    };
    let message = |value| pb::InferParameter { parameter_choice: Some(choice(value)) };
    parameters.iter().map(|(name, value)| ((*name).to_owned(), message(value))).collect()
}

impl Sketch {
    /// Sends the request in a form and puts what comes back into words.
    pub(super) async fn send(&self, form: Form, server: &Server, grpc: &mut Grpc) -> Outcome {
        match form {
            Form::Json | Form::Binary => self.send_rest(form, server).await,
            Form::Typed | Form::Raw => self.send_grpc(form, grpc).await,
            Form::Stream => self.send_in_stream(grpc).await,
        }
    }

    async fn send_rest(&self, form: Form, server: &Server) -> Outcome {
        let mut blobs = Vec::new();
        let inputs: Vec<String> = self.inputs.iter().map(|i| i.json(form, &mut blobs)).collect();
        let mut parameters = self.parameters.clone();
        if form == Form::Binary {
            parameters.push(("binary_data_output", true.into()));
        }
        let id = self.id.map_or(String::new(), |id| format!(r#""id":{},"#, json!(id)));
        let output = |(name, parameters): &(&str, Vec<Parameter>)| json!({"name": name, "parameters": object(parameters)});
        let outputs: Vec<Value> = self.outputs.iter().map(output).collect();
        let mut body = format!(
            r#"{{{id}"inputs":[{}],"outputs":{},"parameters":{}}}"#,
            inputs.join(","),
            json!(outputs),
            object(&parameters)
        )
        .into_bytes();
        let (length, timeout);
        let mut headers = Vec::new();
        if form == Form::Binary {
            length = body.len().to_string();
            headers.push(("inference-header-content-length", &*length));
            body.extend_from_slice(&blobs);
        }
        if let Some(milliseconds) = self.timeout {
            timeout = milliseconds.to_string();
            headers.push(("x-request-timeout-ms", &*timeout));
        }
        headers.extend(self.headers.iter().map(|(name, value)| (*name, &**value)));
        let version = self.version.map_or(String::new(), |v| format!("/versions/{v}"));
        let path = format!("/v2/models/{}{version}/infer", self.model);
        let answer = server.send("POST", &path, &headers, &body).await;
        if answer.status != 200 {
            return rest_refusal(&answer);
        }
        let split = answer.header("inference-header-content-length");
        let split = split.map_or(answer.body.len(), |length| length.parse().unwrap());
        let json: Value = serde_json::from_slice(&answer.body[..split]).unwrap();
        let mut blobs = Bytes::copy_from_slice(&answer.body[split..]);
        let head = head(&json["model_name"], &json["model_version"], &json["id"]);
        let mut text = format!("{}; {head}", rest_metadata(&answer));
        for output in json["outputs"].as_array().unwrap() {
            let datatype = output["datatype"].as_str().unwrap();
            let values = match output["parameters"]["binary_data_size"].as_u64() {
                Some(size) => from_bytes(datatype, blobs.split_to(size as usize)),
                None => from_json(datatype, output["data"].as_array().unwrap()),
            };
            let (name, shape) = (output["name"].as_str().unwrap(), &output["shape"]);
            write!(text, "; {name} {datatype} {shape} {}", values.join(" ")).unwrap();
        }
        assert!(blobs.is_empty(), "{self:?}");
        text
    }

    async fn send_grpc(&self, form: Form, grpc: &mut Grpc) -> Outcome {
        match grpc.inference().model_infer(self.timed(self.message(form))).await {
            Ok(response) => {
                let metadata = grpc_metadata(response.metadata());
                format!("{metadata}; {}", said(response.into_inner()))
            }
            Err(status) => grpc_refusal(&status),
        }
    }

    async fn send_in_stream(&self, grpc: &mut Grpc) -> Outcome {
        let requests = tokio_stream::iter([self.message(Form::Raw)]);
        let answers = grpc.inference().model_stream_infer(self.timed(requests)).await;
        let mut answers = match answers {
            Ok(answers) => answers.into_inner(),
            // What is wrong with the call's metadata fails the whole stream.
            Err(status) => return grpc_refusal(&status),
        };
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answers.message().await.unwrap(), None);
        let response = answer.infer_response.unwrap();
        match &*answer.error_message {
            "" => format!("{STREAM}{}", said(response)),
            message => {
                assert_eq!(response.id, self.id.unwrap_or_default());
                format!("{STREAM}{message}")
            }
        }
    }

    fn message(&self, form: Form) -> pb::ModelInferRequest {
        let input = |input: &Input| InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.into(),
            shape: input.shape.clone(),
            parameters: messages(&input.parameters),
            contents: if form == Form::Typed { input.contents() } else { None },
        };
        let output = |(name, parameters): &(&str, Vec<Parameter>)| InferRequestedOutputTensor {
            name: (*name).into(),
            parameters: messages(parameters),
        };
        let raw = || self.inputs.iter().map(|input| input.bytes().into()).collect();
        pb::ModelInferRequest {
            model_name: self.model.into(),
            model_version: self.version.unwrap_or_default().into(),
            id: self.id.unwrap_or_default().into(),
            parameters: messages(&self.parameters),
            inputs: self.inputs.iter().map(input).collect(),
            outputs: self.outputs.iter().map(output).collect(),
            raw_input_contents: if form == Form::Typed { Vec::new() } else { raw() },
        }
    }

    fn timed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(milliseconds) = self.timeout {
            let value = MetadataValue::try_from(format!("{milliseconds}m")).unwrap();
            request.metadata_mut().insert("grpc-timeout", value);
        }
        for (name, value) in &self.headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        request
    }
}

/// A gRPC answer in words.
fn said(answer: pb::ModelInferResponse) -> String {
    let id = if answer.id.is_empty() { Value::Null } else { json!(answer.id) };
    let mut text = head(&json!(answer.model_name), &json!(answer.model_version), &id);
    assert_eq!(answer.outputs.len(), answer.raw_output_contents.len());
    for (output, raw) in answer.outputs.iter().zip(answer.raw_output_contents) {
        let values = from_bytes(&output.datatype, raw).join(" ");
        let shape = json!(output.shape);
        write!(text, "; {} {} {shape} {values}", output.name, output.datatype).unwrap();
    }
    text
}

fn head(name: &Value, version: &Value, id: &Value) -> String {
    let (name, version) = (name.as_str().unwrap(), version.as_str().unwrap());
    let id = id.as_str().map_or(String::new(), |id| format!(" id {id}"));
    format!("{name} {version}{id}")
}

fn from_bytes(datatype: &str, mut bytes: Bytes) -> Vec<String> {
    let chunk = |size: usize| bytes.chunks_exact(size).map(<[u8]>::to_vec).collect::<Vec<_>>();
    match datatype {
        "FP32" => chunk(4)
            .into_iter()
            .map(|c| format!("{:?}", f32::from_le_bytes(c.try_into().unwrap())))
            .collect(),
        "INT64" => chunk(8)
            .into_iter()
            .map(|c| i64::from_le_bytes(c.try_into().unwrap()).to_string())
            .collect(),
        "BYTES" => {
            let mut texts = Vec::new();
            while !bytes.is_empty() {
                let length = u32::from_le_bytes(bytes.split_to(4)[..].try_into().unwrap());
                let text = bytes.split_to(length as usize);
                texts.push(format!("{:?}", std::str::from_utf8(&text).unwrap()));
            }
            texts
        }
        other => panic!("no model here has outputs of {other}"),
    }
}

fn from_json(datatype: &str, values: &[Value]) -> Vec<String> {
    let value = |value: &Value| match datatype {
        "FP32" => format!("{:?}", value.as_f64().unwrap() as f32),
        _ => value.to_string(),
    };
    values.iter().map(value).collect()
}

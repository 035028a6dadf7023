//! A request of TensorFlow Serving, and the ways to send it.

use api::proto::tensorflow as tf;
use api::proto::tensorflow::serving as pb;
use bytes::Bytes;
use pb::model_spec::VersionChoice;
use serde_json::{Map, Value, json};
use tf::feature::Kind;
use tonic::metadata::MetadataValue;

use super::{Outcome, grpc_metadata, grpc_refusal, rest_metadata, rest_refusal};
use crate::support::{Grpc, Server};

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// REST: for `predict` by rows.
    Rows,
    /// REST: for `predict` by columns.
    Columns,
    Grpc,
}

pub(super) const FORMS: [Form; 3] = [Form::Rows, Form::Columns, Form::Grpc];

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Version {
    #[default]
    Latest,
    Number(i64),
    Label(&'static str),
}

/// What is asked. Values are as in JSON: the first dimension of a tensor is its rows.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Predict(Vec<(&'static str, Value)>),
    Classify { examples: Vec<Value>, context: Option<Value> },
    Regress { examples: Vec<Value>, context: Option<Value> },
}

/// A request as its sender thinks of it.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    pub model: &'static str,
    pub version: Version,
    pub signature: &'static str,
    pub question: Question,
    /// Milliseconds that the caller waits.
    pub timeout: Option<u64>,
    /// Headers, or metadata.
    pub headers: Vec<(&'static str, String)>,
}

impl Sketch {
    pub(super) fn new(model: &'static str, question: Question) -> Self {
        let headers = Vec::new();
        Self { model, version: Version::Latest, signature: "", question, timeout: None, headers }
    }

    /// Sends the request in a form and puts what comes back into words.
    pub(super) async fn send(&self, form: Form, server: &Server, grpc: &mut Grpc) -> Outcome {
        match form {
            Form::Grpc => match self.send_grpc(grpc).await {
                Ok(outcome) => outcome,
                Err(status) => grpc_refusal(&status),
            },
            form => self.send_rest(form, server).await,
        }
    }

    async fn send_rest(&self, form: Form, server: &Server) -> Outcome {
        let mut body = Map::new();
        if !self.signature.is_empty() {
            body.insert("signature_name".into(), json!(self.signature));
        }
        let verb = match &self.question {
            Question::Predict(inputs) => {
                match form {
                    Form::Rows => body.insert("instances".into(), rows(inputs)),
                    _ => {
                        let named =
                            |(name, value): &(&str, Value)| ((*name).to_owned(), value.clone());
                        body.insert("inputs".into(), inputs.iter().map(named).collect())
                    }
                };
                "predict"
            }
            Question::Classify { examples, context } | Question::Regress { examples, context } => {
                body.insert("examples".into(), json!(examples));
                if let Some(context) = context {
                    body.insert("context".into(), context.clone());
                }
                let classify = matches!(self.question, Question::Classify { .. });
                if classify { "classify" } else { "regress" }
            }
        };
        let version = match self.version {
            Version::Latest => String::new(),
            Version::Number(number) => format!("/versions/{number}"),
            Version::Label(label) => format!("/labels/{label}"),
        };
        let timeout = self.timeout.map(|milliseconds| milliseconds.to_string());
        let mut headers: Vec<_> =
            timeout.iter().map(|ms| ("x-request-timeout-ms", &**ms)).collect();
        headers.extend(self.headers.iter().map(|(name, value)| (*name, &**value)));
        let path = format!("/v1/models/{}{version}:{verb}", self.model);
        let answer = server.send("POST", &path, &headers, json!(body).to_string().as_bytes()).await;
        if answer.status != 200 {
            return rest_refusal(&answer);
        }
        let said = answer.json();
        let keys = ["predictions", "outputs", "results"];
        let values = keys.iter().find_map(|key| said.get(key)).unwrap();
        outcome(&rest_metadata(&answer), &columns(values))
    }

    async fn send_grpc(&self, grpc: &Grpc) -> Result<Outcome, tonic::Status> {
        let version_choice = match self.version {
            Version::Latest => None,
            Version::Number(number) => Some(VersionChoice::Version(number)),
            Version::Label(label) => Some(VersionChoice::VersionLabel(label.into())),
        };
        let (name, signature_name) = (self.model.into(), self.signature.into());
        let model_spec = Some(pb::ModelSpec { name, version_choice, signature_name });
        let mut client = grpc.predictions();
        match &self.question {
            Question::Predict(inputs) => {
                let named = |(name, value): &(&str, Value)| ((*name).into(), tensor(value));
                let inputs = inputs.iter().map(named).collect();
                let message = pb::PredictRequest { model_spec, inputs, ..Default::default() };
                let response = client.predict(self.timed(message)).await?;
                let metadata = grpc_metadata(response.metadata());
                let outputs = response.into_inner().outputs;
                let named = outputs.iter().map(|(name, tensor)| (name.clone(), nested(tensor)));
                let mut named: Map<String, Value> = named.collect();
                let single = (named.len() == 1).then(|| named.values_mut().next().unwrap().take());
                Ok(outcome(&metadata, &single.unwrap_or(Value::Object(named))))
            }
            Question::Classify { examples, context } => {
                let input = Some(input(examples, context.as_ref()));
                let message = pb::ClassificationRequest { model_spec, input };
                let response = client.classify(self.timed(message)).await?;
                let metadata = grpc_metadata(response.metadata());
                let result = response.into_inner().result.unwrap();
                let class = |class: &pb::Class| json!([class.label, class.score]);
                let row = |row: &pb::Classifications| row.classes.iter().map(class).collect();
                let rows: Vec<Value> = result.classifications.iter().map(row).collect();
                Ok(outcome(&metadata, &json!(rows)))
            }
            Question::Regress { examples, context } => {
                let input = Some(input(examples, context.as_ref()));
                let message = pb::RegressionRequest { model_spec, input };
                let response = client.regress(self.timed(message)).await?;
                let metadata = grpc_metadata(response.metadata());
                let result = response.into_inner().result.unwrap();
                let values: Vec<f32> = result.regressions.iter().map(|r| r.value).collect();
                Ok(outcome(&metadata, &json!(values)))
            }
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

/// Columns as rows.
fn rows(inputs: &[(&str, Value)]) -> Value {
    let count = inputs.first().map_or(0, |(_, value)| value.as_array().unwrap().len());
    let cell =
        |row: usize, (name, column): &(&str, Value)| ((*name).to_owned(), column[row].clone());
    (0..count).map(|row| inputs.iter().map(|i| cell(row, i)).collect::<Value>()).collect()
}

/// Rows as columns; what has no names stays as it is.
fn columns(values: &Value) -> Value {
    let Some(Value::Object(first)) = values.get(0) else { return values.clone() };
    let column = |name: &String| -> Value {
        values.as_array().unwrap().iter().map(|row| row[name].clone()).collect()
    };
    first.keys().map(|name| (name.clone(), column(name))).collect()
}

/// Numbers are FP32, however they were written.
fn outcome(metadata: &str, values: &Value) -> Outcome {
    fn rounded(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(rounded).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), rounded(value))).collect()
            }
            Value::Number(number) => json!(number.as_f64().unwrap() as f32),
            other => other.clone(),
        }
    }
    format!("{metadata}; {}", rounded(values))
}

fn flat<'a>(value: &'a Value, elements: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flat(item, elements)),
        element => elements.push(element),
    }
}

fn tensor(value: &Value) -> tf::TensorProto {
    let (mut dim, mut inner) = (Vec::new(), Some(value));
    while let Some(Value::Array(items)) = inner {
        let size = items.len() as i64;
        dim.push(tf::tensor_shape_proto::Dim { size, ..Default::default() });
        inner = items.first();
    }
    let mut elements = Vec::new();
    flat(value, &mut elements);
    let mut message = tf::TensorProto {
        tensor_shape: Some(tf::TensorShapeProto { dim, unknown_rank: false }),
        ..Default::default()
    };
    if elements.iter().any(|element| element.is_string()) {
        message.dtype = tf::DataType::DtString.into();
        let text = |e: &&Value| Bytes::copy_from_slice(e.as_str().unwrap().as_bytes());
        message.string_val = elements.iter().map(text).collect();
    } else {
        message.dtype = tf::DataType::DtFloat.into();
        message.float_val = elements.iter().map(|e| e.as_f64().unwrap() as f32).collect();
    }
    message
}

fn nested(tensor: &tf::TensorProto) -> Value {
    let mut elements: Vec<Value> = match tf::DataType::try_from(tensor.dtype).unwrap() {
        tf::DataType::DtFloat => tensor.float_val.iter().map(|v| json!(v)).collect(),
        tf::DataType::DtString => {
            tensor.string_val.iter().map(|v| json!(String::from_utf8_lossy(v))).collect()
        }
        other => panic!("no model here has outputs of {other:?}"),
    };
    let shape = tensor.tensor_shape.as_ref().unwrap();
    for dim in shape.dim[1..].iter().rev() {
        elements = elements.chunks(dim.size as usize).map(|row| json!(row)).collect();
    }
    json!(elements)
}

fn input(examples: &[Value], context: Option<&Value>) -> pb::Input {
    let examples = examples.iter().map(example).collect();
    let kind = match context {
        None => pb::input::Kind::ExampleList(pb::ExampleList { examples }),
        Some(context) => {
            let context = Some(example(context));
            let list = pb::ExampleListWithContext { examples, context };
            pb::input::Kind::ExampleListWithContext(list)
        }
    };
    pb::Input { kind: Some(kind) }
}

fn example(fields: &Value) -> tf::Example {
    let feature = |(name, value): (&String, &Value)| {
        let mut elements = Vec::new();
        flat(value, &mut elements);
        let kind = if elements.iter().any(|element| element.is_string()) {
            let text = |e: &&Value| Bytes::copy_from_slice(e.as_str().unwrap().as_bytes());
            Kind::BytesList(tf::BytesList { value: elements.iter().map(text).collect() })
        } else if elements.iter().all(|element| element.is_i64()) {
            let value = elements.iter().map(|e| e.as_i64().unwrap()).collect();
            Kind::Int64List(tf::Int64List { value })
        } else {
            let value = elements.iter().map(|e| e.as_f64().unwrap() as f32).collect();
            Kind::FloatList(tf::FloatList { value })
        };
        (name.clone(), tf::Feature { kind: Some(kind) })
    };
    let feature = fields.as_object().unwrap().iter().map(feature).collect();
    tf::Example { features: Some(tf::Features { feature }) }
}

//! The Open Inference Protocol over REST, from the client's side: a model's metadata, requests and
//! answers as tensors, in JSON or with binary tensor data.

use bytes::Bytes;
use model::{Data, DataType, Tensor, match_data};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Failure;
use crate::http::{Answer, Broken, Connection, Endpoint};

/// What a server says of a model.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// What it takes.
    pub inputs: Vec<Spec>,
}

/// One named tensor of a model.
#[derive(Clone, Debug, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub datatype: DataType,
    /// Its shape: -1 where it varies.
    pub shape: Vec<i64>,
}

/// The headers of a request.
pub type Headers = Vec<(String, String)>;

/// The route of a model, `/v2/models/NAME[/versions/VERSION]`.
pub fn route(model: &str, version: Option<&str>) -> String {
    let version = version.map(|v| format!("/versions/{}", escape(v))).unwrap_or_default();
    format!("/v2/models/{}{version}", escape(model))
}

/// Percent-encodes whatever may not stand in a path's segment.
pub fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte as char);
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Connects, with advice for those who have not started a server.
pub async fn connect(endpoint: &Endpoint) -> Result<Connection, Failure> {
    Connection::open(endpoint).await.map_err(|broken| {
        Failure::new(format!("{endpoint}: {broken}"))
            .help("is the server running? start one with: modelyard serve MODEL.onnx")
    })
}

/// A broken exchange as a failure.
pub fn broken(endpoint: &Endpoint) -> impl Fn(Broken) -> Failure + '_ {
    move |broken| Failure::new(format!("{endpoint}: {broken}"))
}

/// Asks for a model's metadata.
pub async fn metadata(
    connection: &mut Connection,
    endpoint: &Endpoint,
    route: &str,
) -> Result<Metadata, Failure> {
    let answer = connection.answer(&endpoint.get(route)).await.map_err(broken(endpoint))?;
    if answer.status != 200 {
        let failure = Failure::new(refusal(&answer));
        return Err(match answer.status {
            400 | 404 => failure.help(format!("{endpoint}/ says which models are running")),
            _ => failure,
        });
    }
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(format!("{endpoint}{route}: not a model's metadata: {error}"))
    })
}

/// Whether the server says that it takes binary tensor data; no if it says nothing.
pub async fn takes_binary(connection: &mut Connection, endpoint: &Endpoint) -> bool {
    #[derive(Deserialize)]
    struct Server {
        #[serde(default)]
        extensions: Vec<String>,
    }
    let Ok(answer) = connection.answer(&endpoint.get("/v2")).await else { return false };
    serde_json::from_slice::<Server>(&answer.body)
        .is_ok_and(|server| server.extensions.iter().any(|e| e == "binary_tensor_data"))
}

/// What a refused request was told, on one line.
pub fn refusal(answer: &Answer) -> String {
    let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let message = match json.as_ref().and_then(|json| json.get("error")) {
        Some(Value::String(message)) => message.clone(),
        _ => String::from_utf8_lossy(&answer.body).chars().take(400).collect(),
    };
    match message.trim() {
        "" => format!("the server answered {}", answer.status),
        message => format!("the server answered {}: {message}", answer.status),
    }
}

/// Encodes a request: its headers and body. With `binary`, tensors follow the JSON as bytes, and the
/// outputs are asked for in the same way.
pub fn encode(inputs: &[(String, Tensor)], binary: bool) -> Result<(Headers, Vec<u8>), Failure> {
    if binary {
        return Ok(encode_binary(inputs));
    }
    let mut body = String::from("{\"inputs\":[");
    for (i, (name, tensor)) in inputs.iter().enumerate() {
        let head = json!({"name": name, "datatype": tensor.datatype(), "shape": tensor.shape()});
        let head = head.to_string();
        let comma = if i == 0 { "" } else { "," };
        body.push_str(&format!("{comma}{},\"data\":", head.trim_end_matches('}')));
        body.push_str(&json_data(name, tensor.data())?);
        body.push('}');
    }
    body.push_str("]}");
    Ok((vec![header("content-type", "application/json")], body.into_bytes()))
}

fn header(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

fn encode_binary(inputs: &[(String, Tensor)]) -> (Headers, Vec<u8>) {
    let mut blobs = Vec::new();
    let mut heads = Vec::new();
    for (name, tensor) in inputs {
        let start = blobs.len();
        match tensor.data() {
            Data::Bytes(strings) => {
                for string in strings {
                    blobs.extend_from_slice(&(string.len() as u32).to_le_bytes());
                    blobs.extend_from_slice(string);
                }
            }
            plain => blobs.extend_from_slice(plain.as_bytes().expect("a plain type")),
        }
        heads.push(json!({
            "name": name, "datatype": tensor.datatype(), "shape": tensor.shape(),
            "parameters": {"binary_data_size": blobs.len() - start},
        }));
    }
    let head = json!({"inputs": heads, "parameters": {"binary_data_output": true}});
    let mut body = head.to_string().into_bytes();
    let headers = vec![
        header("content-type", "application/octet-stream"),
        header("inference-header-content-length", body.len().to_string()),
    ];
    body.extend_from_slice(&blobs);
    (headers, body)
}

/// The elements as a flat JSON array. JSON has no NaN: the token is written all the same, as most
/// servers take it and those that do not say so.
fn json_data(name: &str, data: &Data) -> Result<String, Failure> {
    fn float(value: f64) -> String {
        match value {
            v if v.is_nan() => "NaN".into(),
            v if v.is_infinite() => if v > 0.0 { "Infinity" } else { "-Infinity" }.into(),
            v => v.to_string(),
        }
    }
    let join = |parts: Vec<String>| format!("[{}]", parts.join(","));
    Ok(match data {
        Data::Bool(bools) => join(bools.iter().map(|b| (*b != 0).to_string()).collect()),
        // `f32` prints fewer digits than the same number as `f64`.
        Data::Fp32(floats) => join(
            floats
                .iter()
                .map(|v| if v.is_finite() { v.to_string() } else { float(f64::from(*v)) })
                .collect(),
        ),
        Data::Fp64(floats) => join(floats.iter().map(|v| float(*v)).collect()),
        Data::Fp16(floats) => join(floats.iter().map(|v| float(v.to_f64())).collect()),
        Data::Bf16(floats) => join(floats.iter().map(|v| float(v.to_f64())).collect()),
        Data::Bytes(strings) => {
            let quote = |bytes: &Bytes| match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Value::from(text).to_string()),
                Err(_) => Err(Failure::new(format!(
                    "input \"{name}\": a string that is not UTF-8 needs binary tensor data, which \
                     this server does not take"
                ))),
            };
            join(strings.iter().map(quote).collect::<Result<_, _>>()?)
        }
        integers => join(match_data!(integers,
            buffer => buffer.iter().map(|v| v.to_string()).collect(),
            _strings => Vec::new())),
    })
}

#[derive(Deserialize)]
struct Outputs {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: DataType,
    shape: Vec<usize>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
}

/// A decoded answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Named outputs, in the server's order.
    pub outputs: Vec<(String, Tensor)>,
}

/// Decodes an answer, JSON or binary.
pub fn decode(answer: &Answer) -> Result<Decoded, Failure> {
    let wrong = |why: String| Failure::new(format!("the server's answer cannot be read: {why}"));
    let split = answer.json.unwrap_or(answer.body.len());
    let (json, mut blobs) = answer
        .body
        .split_at_checked(split)
        .ok_or_else(|| wrong("it is shorter than its header says".into()))?;
    let decoded: Outputs =
        serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    let mut outputs = Vec::with_capacity(decoded.outputs.len());
    for output in decoded.outputs {
        let data = match (output.parameters.binary_data_size, &output.data) {
            (Some(size), None) => {
                let (blob, rest) = blobs
                    .split_at_checked(size)
                    .ok_or_else(|| wrong(format!("output \"{}\" is cut off", output.name)))?;
                blobs = rest;
                binary_data(output.datatype, blob)
            }
            (None, Some(values)) => json_values(output.datatype, values),
            _ => None,
        };
        let tensor = data
            .and_then(|data| Tensor::new(output.shape.clone(), data).ok())
            .ok_or_else(|| {
                wrong(format!(
                    "output \"{}\" does not hold {} of shape {:?}",
                    output.name, output.datatype, output.shape
                ))
            })?;
        outputs.push((output.name, tensor));
    }
    Ok(Decoded { outputs })
}

fn binary_data(datatype: DataType, blob: &[u8]) -> Option<Data> {
    if datatype != DataType::Bytes {
        return Data::from_bytes(datatype, Bytes::copy_from_slice(blob));
    }
    let mut strings = Vec::new();
    let mut rest = blob;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (string, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        strings.push(Bytes::copy_from_slice(string));
        rest = after;
    }
    Some(Data::Bytes(strings))
}

fn json_values(datatype: DataType, values: &Value) -> Option<Data> {
    let mut flat = Vec::new();
    flatten(values, &mut flat);
    fn each<T>(flat: &[&Value], read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        flat.iter().map(|value| read(value)).collect()
    }
    fn integers<T: TryFrom<i64>>(flat: &[&Value]) -> Option<Vec<T>> {
        each(flat, |value| T::try_from(value.as_i64()?).ok())
    }
    // A number that JSON cannot hold is written as null by some servers.
    let float = |value: &Value| match value {
        Value::Null => Some(f64::NAN),
        value => value.as_f64(),
    };
    Some(match datatype {
        DataType::Bool => each(&flat, Value::as_bool)?.into(),
        DataType::Uint8 => integers::<u8>(&flat)?.into(),
        DataType::Uint16 => integers::<u16>(&flat)?.into(),
        DataType::Uint32 => integers::<u32>(&flat)?.into(),
        DataType::Uint64 => each(&flat, Value::as_u64)?.into(),
        DataType::Int8 => integers::<i8>(&flat)?.into(),
        DataType::Int16 => integers::<i16>(&flat)?.into(),
        DataType::Int32 => integers::<i32>(&flat)?.into(),
        DataType::Int64 => each(&flat, Value::as_i64)?.into(),
        DataType::Fp16 => each(&flat, |v| float(v).map(model::f16::from_f64))?.into(),
        DataType::Bf16 => each(&flat, |v| float(v).map(model::bf16::from_f64))?.into(),
        DataType::Fp32 => each(&flat, |v| float(v).map(|v| v as f32))?.into(),
        DataType::Fp64 => each(&flat, float)?.into(),
        DataType::Bytes => each(&flat, |v| v.as_str().map(str::to_owned))?.into(),
    })
}

/// The elements of data, which may be nested as its shape is.
pub fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, into)),
        value => into.push(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors() -> Vec<(String, Tensor)> {
        let tensor = |data: Data| Tensor::new(vec![2], data).unwrap();
        vec![
            ("f".into(), tensor(vec![1.5f32, -0.1].into())),
            ("i".into(), tensor(vec![i64::MAX, -1].into())),
            ("u".into(), tensor(vec![u64::MAX, 0].into())),
            ("b".into(), tensor(vec![true, false].into())),
            ("s".into(), tensor(vec!["a\"b".to_owned(), String::new()].into())),
            ("h".into(), tensor(vec![model::f16::from_f32(0.5); 2].into())),
        ]
    }

    /// A server that gives back what it was given.
    fn echo(headers: &Headers, body: &[u8]) -> Answer {
        let length = "inference-header-content-length";
        let json = headers.iter().find(|(name, _)| name == length).map(|h| h.1.parse().unwrap());
        let split = json.unwrap_or(body.len());
        let head = String::from_utf8(body[..split].to_vec()).unwrap();
        let head = head.replacen("\"inputs\"", "\"outputs\"", 1).into_bytes();
        let json = json.map(|_| head.len());
        Answer { status: 200, json, body: [&head, &body[split..]].concat() }
    }

    #[test]
    fn tensors_survive_both_encodings() {
        for binary in [false, true] {
            let (headers, body) = encode(&tensors(), binary).unwrap();
            let decoded = decode(&echo(&headers, &body)).unwrap();
            assert_eq!(decoded.outputs, tensors(), "binary: {binary}");
        }
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_refused() {
        let answer = |body: &str, json| Answer { status: 200, json, body: body.into() };
        let output = r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[3],"data":[1,2]}]}"#;
        for answer in [answer(output, None), answer("{}", None), answer("{}", Some(9))] {
            assert!(decode(&answer).is_err());
        }
    }

    #[test]
    fn names_are_escaped_in_routes() {
        assert_eq!(route("a/b é", Some("v 1")), "/v2/models/a%2Fb%20%C3%A9/versions/v%201");
    }
}

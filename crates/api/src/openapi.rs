//! The OpenAPI 3.1 description of the models that are loaded: real names, shapes and types, an
//! example of each request that works when it is sent, and every error.
//!
//! A pure function of what serving says is running.

use hyper::header::HeaderName;
pub(crate) mod alerts;
pub(crate) mod registry;

use model::{DataType, Dimension, ErrorCode, Signature, TensorSpec};
use serde_json::{Map, Value, json};
use serving::{ModelInfo, Status};

use crate::{TABLE, caller};

/// The most elements that an example body spells out; a longer one would be no use to read.
const MAX_EXAMPLE: usize = 200_000;

/// Describes the server with the given name and version, and every model that is ready.
pub(crate) fn document(name: &str, version: &str, models: &[Status]) -> Value {
    let mut paths = server_paths();
    for status in models.iter().filter(|status| status.state.answers()) {
        let Some(info) = &status.info else { continue };
        let several = models.iter().filter(|other| other.name == status.name).count() > 1;
        model_paths(&mut paths, info, several);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": version,
            "summary": "The models of this server.",
            "description": "REST of the Open Inference Protocol (version 2) and of TensorFlow \
                Serving. The same models answer gRPC on the same port.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "this server"}],
        "tags": [
            {"name": "server", "description": "What the server is and how it does"},
            {"name": "models", "description": "What is loaded, and predictions"},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": error_responses(),
            "parameters": parameters(),
        },
    })
}

fn server_paths() -> Map<String, Value> {
    let get = |id: &str, summary: &str, responses: Value| json!({"get": {"operationId": id, "tags": ["server"], "summary": summary, "responses": responses}});
    let metadata = json!({"200": json_response("The server's metadata", json!({
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "extensions": {"type": "array", "items": {"type": "string"}},
        },
    }))});
    let health = json!({
        "200": {"description": "Yes"}, "400": {"description": "No"}, "503": {"description": "No"},
    });
    let mut paths = Map::new();
    paths.insert("/v2".into(), get("serverMetadata", "Name, version and extensions", metadata));
    paths.insert(
        "/v2/health/live".into(),
        get("serverLive", "Whether the process runs", health.clone()),
    );
    paths.insert(
        "/v2/health/ready".into(),
        get("serverReady", "Whether every model is ready", health),
    );
    paths
}

/// The routes of one version: the model's own if it is the only one, else those that name it too.
fn model_paths(paths: &mut Map<String, Value>, info: &ModelInfo, several: bool) {
    let (name, version) = (segment(&info.name), segment(&info.version));
    let id = identifier(&info.name);
    let mut add = |prefix: String, id: String| {
        paths.insert(format!("/v2/models/{prefix}"), metadata_path(info, &id));
        paths.insert(format!("/v2/models/{prefix}/ready"), ready_path(info, &id));
        paths.insert(format!("/v2/models/{prefix}/infer"), infer_path(info, &id));
        if let Some(path) = predict_path(info, &id) {
            paths.insert(format!("/v1/models/{prefix}:predict"), path);
        }
    };
    // Versions are in order, so the routes without one describe the newest.
    add(name.clone(), id.clone());
    if several {
        add(format!("{name}/versions/{version}"), format!("{id}_{}", identifier(&info.version)));
    }
}

fn title(info: &ModelInfo) -> String {
    format!("{} (version {})", info.name, info.version)
}

fn metadata_path(info: &ModelInfo, id: &str) -> Value {
    let body = json!({"$ref": "#/components/schemas/ModelMetadata"});
    json!({"get": {
        "operationId": format!("metadata_{id}"), "tags": ["models"],
        "summary": format!("What {} takes and gives", title(info)),
        "responses": {"200": json_response("The model's metadata", body),
                      "404": {"$ref": "#/components/responses/NOT_FOUND"}},
    }})
}

fn ready_path(info: &ModelInfo, id: &str) -> Value {
    json!({"get": {
        "operationId": format!("ready_{id}"), "tags": ["models"],
        "summary": format!("Whether {} answers requests", title(info)),
        "responses": {"200": {"description": "Yes"}, "400": {"description": "No"},
                      "404": {"description": "No such model"}, "503": {"description": "No"}},
    }})
}

fn infer_path(info: &ModelInfo, id: &str) -> Value {
    let signature = &info.signature;
    let inputs: Vec<Value> = signature.inputs.iter().map(tensor_schema).collect();
    let outputs: Vec<Value> = signature.outputs.iter().map(tensor_schema).collect();
    let required = signature.inputs.iter().filter(|spec| !spec.optional).count();
    let request = json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "description": "Comes back in the answer"},
            "parameters": {"type": "object"},
            "inputs": {
                "type": "array", "minItems": required, "maxItems": signature.inputs.len(),
                "items": {"oneOf": inputs},
            },
            "outputs": {
                "type": "array",
                "description": "The outputs that are wanted; all, if it is left out",
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "parameters": {"type": "object"},
                }},
            },
        },
    });
    let answer = json!({
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"const": &*info.name},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": {"oneOf": outputs}},
        },
    });
    operation(
        info,
        &format!("infer_{id}"),
        Bodies {
            summary: format!("Predict with {}", title(info)),
            protocol: "Open Inference Protocol",
            request,
            answer,
            example: example(signature),
        },
    )
}

/// What TensorFlow Serving's clients send; `None` if an example would be too long, for the schema
/// alone says little.
fn predict_path(info: &ModelInfo, id: &str) -> Option<Value> {
    let signature = &info.signature;
    let nested = |spec: &TensorSpec| {
        let shape = example_shape(spec);
        model::element_count(&shape).filter(|count| *count <= MAX_EXAMPLE)?;
        Some(nest(&shape, &zero(spec.datatype)))
    };
    let required: Vec<&TensorSpec> = signature.inputs.iter().filter(|s| !s.optional).collect();
    let inputs = match required[..] {
        [single] if signature.inputs.len() == 1 => nested(single)?,
        _ => {
            let named = |spec: &&TensorSpec| Some((spec.name.to_string(), nested(spec)?));
            Value::Object(required.iter().map(named).collect::<Option<_>>()?)
        }
    };
    let columns = json!({"description": "All rows of each input: a tensor, or tensors by name"});
    let rows = json!({"type": "array", "description": "One row of every input in each element"});
    Some(operation(
        info,
        &format!("predict_{id}"),
        Bodies {
            summary: format!("Predict with {}, as TensorFlow Serving does", title(info)),
            protocol: "TensorFlow Serving",
            request: json!({
                "type": "object",
                "properties": {
                    "signature_name": {"type": "string"}, "inputs": columns, "instances": rows,
                },
                "oneOf": [{"required": ["inputs"]}, {"required": ["instances"]}],
            }),
            answer: json!({
                "type": "object",
                "properties": {
                    "outputs": {"description": "For inputs: a tensor, or tensors by name"},
                    "predictions": {"type": "array", "description": "For instances: one for each row"},
                },
            }),
            example: Some(json!({"inputs": inputs})),
        },
    ))
}

struct Bodies {
    summary: String,
    protocol: &'static str,
    request: Value,
    answer: Value,
    example: Option<Value>,
}

fn operation(info: &ModelInfo, id: &str, bodies: Bodies) -> Value {
    let mut media = json!({"schema": bodies.request});
    if let Some(example) = bodies.example {
        media["example"] = example;
    }
    let mut responses = json!({"200": json_response("The prediction", bodies.answer)});
    for code in ERRORS {
        let (_, http, _) = TABLE.iter().find(|row| row.0 == code).expect("every code is in it");
        responses[http.to_string()] = json!({"$ref": format!("#/components/responses/{code}")});
    }
    responses["413"] = json!({"$ref": "#/components/responses/TOO_LARGE"});
    json!({"post": {
        "operationId": id,
        "tags": ["models"],
        "summary": bodies.summary,
        "parameters": [
            {"$ref": "#/components/parameters/Key"},
            {"$ref": "#/components/parameters/Version"},
        ],
        "requestBody": {"required": true, "content": {"application/json": media}},
        "responses": responses,
        "x-modelyard": {
            "model": &*info.name,
            "version": &*info.version,
            "protocol": bodies.protocol,
            "engine": info.engine,
            "inputs": info.signature.inputs,
            "outputs": info.signature.outputs,
        },
    }})
}

/// The headers that any prediction may have.
fn parameters() -> Value {
    let header = |name: &HeaderName, description: &str| {
        json!({
            "name": name.as_str(), "in": "header", "required": false, "description": description,
            "schema": {
                "type": "string", "minLength": 1, "maxLength": caller::LONGEST,
                "pattern": "^[ -~]+$",
            },
        })
    };
    json!({
        "Key": header(&caller::KEY, "Who asks, in any words: requests with the same key get the \
            same version of a model while its shares of traffic stay the same"),
        "Version": header(&caller::VERSION, "The version that is to answer, whatever its share of \
            traffic; must not contradict a version in the path"),
    })
}

/// What can go wrong with a prediction; 413 is HTTP's own.
const ERRORS: [ErrorCode; 6] = [
    ErrorCode::InvalidArgument,
    ErrorCode::NotFound,
    ErrorCode::ResourceExhausted,
    ErrorCode::Internal,
    ErrorCode::Unavailable,
    ErrorCode::DeadlineExceeded,
];

fn error_responses() -> Value {
    let mut responses = Map::new();
    let error = json!({"$ref": "#/components/schemas/Error"});
    for code in ERRORS {
        let description = match code {
            ErrorCode::InvalidArgument => {
                "The request does not fit the model; the error says where"
            }
            ErrorCode::NotFound => "No such model or version",
            ErrorCode::ResourceExhausted => "Too much is asked at once; nothing was done",
            ErrorCode::Unavailable => "The model is not ready",
            ErrorCode::DeadlineExceeded => "The caller's time was up before the answer was there",
            _ => "The engine failed",
        };
        let mut response = json_response(description, error.clone());
        if matches!(code, ErrorCode::ResourceExhausted | ErrorCode::Unavailable) {
            response["headers"] = json!({"Retry-After": {
                "description": "Seconds after which asking again makes sense",
                "schema": {"type": "integer", "minimum": 1},
            }});
        }
        responses.insert(code.to_string(), response);
    }
    responses.insert("TOO_LARGE".into(), json_response("The body is over the limit", error));
    Value::Object(responses)
}

fn json_response(description: &str, schema: Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

fn schemas() -> Value {
    let nested = |name: &str, element: Value| {
        json!({"type": "array", "items": {"anyOf": [
            element, {"$ref": format!("#/components/schemas/{name}")},
        ]}})
    };
    let tensor = json!({
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": DataType::ALL},
            "shape": {"type": "array", "items": {"type": "integer"}, "description": "-1: varies"},
        },
    });
    json!({
        "Error": {
            "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
        },
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "platform", "inputs", "outputs"],
            "properties": {
                "name": {"type": "string"},
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": {"type": "string"},
                "inputs": {"type": "array", "items": tensor.clone()},
                "outputs": {"type": "array", "items": tensor},
            },
        },
        "Numbers": nested("Numbers", json!({"type": "number"})),
        "Integers": nested("Integers", json!({"type": "integer"})),
        "Booleans": nested("Booleans", json!({"type": "boolean"})),
        "Strings": nested("Strings", json!({"type": "string"})),
    })
}

/// A tensor of this spec in a request or an answer; its data is flat or nested.
fn tensor_schema(spec: &TensorSpec) -> Value {
    let data = match spec.datatype {
        DataType::Bool => "Booleans",
        DataType::Bytes => "Strings",
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => "Numbers",
        _ => "Integers",
    };
    let shape = match &spec.shape {
        None => json!({"type": "array", "items": {"type": "integer", "minimum": 0}}),
        Some(dims) => json!({
            "type": "array", "minItems": dims.len(), "maxItems": dims.len(),
            "items": {"type": "integer"},
            "prefixItems": dims.iter().map(dimension_schema).collect::<Vec<_>>(),
        }),
    };
    let mut schema = json!({
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": &*spec.name},
            "datatype": {"const": spec.datatype},
            "shape": shape,
            "data": {"$ref": format!("#/components/schemas/{data}")},
            "parameters": {"type": "object"},
        },
    });
    if !spec.labels.is_empty() {
        schema["description"] =
            format!("Along the last dimension: {}", spec.labels.join(", ")).into();
    }
    schema
}

fn dimension_schema(dimension: &Dimension) -> Value {
    match dimension {
        Dimension::Fixed(extent) => json!({"const": extent}),
        Dimension::Symbolic(name) => json!({"type": "integer", "minimum": 0, "title": &**name}),
        Dimension::Any => json!({"type": "integer", "minimum": 0}),
    }
}

/// One row of zeros for every input that a request needs; `None` if that would be too long.
fn example(signature: &Signature) -> Option<Value> {
    let tensor = |spec: &TensorSpec| {
        let shape = example_shape(spec);
        let count = model::element_count(&shape).filter(|count| *count <= MAX_EXAMPLE)?;
        let data = vec![zero(spec.datatype); count];
        Some(json!({"name": &*spec.name, "shape": shape, "datatype": spec.datatype, "data": data}))
    };
    let required = signature.inputs.iter().filter(|spec| !spec.optional);
    let inputs: Option<Vec<Value>> = required.map(tensor).collect();
    Some(json!({"inputs": inputs?}))
}

fn example_shape(spec: &TensorSpec) -> Vec<usize> {
    let Some(dims) = &spec.shape else { return vec![1] };
    let extent = |dim: &Dimension| if let Dimension::Fixed(extent) = dim { *extent } else { 1 };
    dims.iter().map(extent).collect()
}

fn zero(datatype: DataType) -> Value {
    match datatype {
        DataType::Bool => false.into(),
        DataType::Bytes => "".into(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => 0.0.into(),
        _ => 0.into(),
    }
}

fn nest(shape: &[usize], element: &Value) -> Value {
    match shape.split_first() {
        None => element.clone(),
        Some((extent, rest)) => vec![nest(rest, element); *extent].into(),
    }
}

/// A name as it may stand in an operation's id; different names may share one only by intent of
/// whoever named them so, for each character that may not stand there is spelled as its code.
fn identifier(name: &str) -> String {
    let spell = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_string(),
        c => format!("_{:x}_", u32::from(c)),
    };
    name.chars().map(spell).collect()
}

/// A name as a path's segment: whatever may not stand there is percent-encoded, braces too, which
/// OpenAPI would take for a parameter, and quotes, which would end an attribute.
pub(crate) fn segment(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::tests::{info, status};
    use serving::State;

    fn spec(name: &str, datatype: DataType, shape: Vec<Dimension>) -> TensorSpec {
        TensorSpec::new(name, datatype, shape)
    }

    fn signature() -> Signature {
        let rows = || Dimension::Symbolic("N".into());
        let inputs = vec![
            spec("x", DataType::Fp32, vec![rows(), Dimension::Fixed(3)]),
            spec("s", DataType::Bytes, vec![rows(), Dimension::Any]),
        ];
        let outputs = vec![spec("y", DataType::Int64, vec![rows()])];
        Signature { inputs, outputs, batched: true }
    }

    #[test]
    fn a_model_is_described_with_an_example_of_zeros() {
        let document = document("m", "1", &[status(info("a/b {c}", "1", signature()))]);
        let post = &document["paths"]["/v2/models/a%2Fb%20%7Bc%7D/infer"]["post"];
        let body = &post["requestBody"]["content"]["application/json"];
        let expected = json!({"inputs": [
            {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.0, 0.0, 0.0]},
            {"name": "s", "shape": [1, 1], "datatype": "BYTES", "data": [""]},
        ]});
        assert_eq!(body["example"], expected);
        let shape =
            &body["schema"]["properties"]["inputs"]["items"]["oneOf"][0]["properties"]["shape"];
        assert_eq!(shape["prefixItems"][1], json!({"const": 3}));
        let predict = &document["paths"]["/v1/models/a%2Fb%20%7Bc%7D:predict"]["post"];
        let body = &predict["requestBody"]["content"]["application/json"]["example"];
        assert_eq!(*body, json!({"inputs": {"x": [[0.0, 0.0, 0.0]], "s": [[""]]}}));
    }

    #[test]
    fn only_what_is_ready_is_described_and_each_version_has_its_routes() {
        let mut loading = status(info("slow", "1", signature()));
        loading.state = State::Loading;
        let models =
            [status(info("a", "1", signature())), status(info("a", "2", signature())), loading];
        let document = document("m", "1", &models);
        let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        assert!(!paths.iter().any(|path| path.contains("slow")), "{paths:?}");
        assert!(paths.iter().any(|path| *path == "/v2/models/a/versions/1/infer"), "{paths:?}");
        let newest = &document["paths"]["/v2/models/a/infer"]["post"]["x-modelyard"]["version"];
        assert_eq!(newest, "2");
        let ids: Vec<&Value> = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|path| path.as_object().unwrap().values())
            .map(|operation| &operation["operationId"])
            .collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().map(|id| id.to_string()).collect();
        assert_eq!(ids.len(), distinct.len(), "{ids:?}");
    }

    #[test]
    fn an_example_that_nobody_could_read_is_left_out() {
        let huge =
            spec("x", DataType::Fp32, vec![Dimension::Fixed(usize::MAX), Dimension::Fixed(9)]);
        let signature = Signature { inputs: vec![huge], outputs: Vec::new(), batched: false };
        let document = document("m", "1", &[status(info("a", "1", signature))]);
        let post = &document["paths"]["/v2/models/a/infer"]["post"];
        let media = &post["requestBody"]["content"]["application/json"];
        assert!(media.get("schema").is_some() && media.get("example").is_none());
    }
}

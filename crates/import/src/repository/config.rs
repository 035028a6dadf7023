//! Triton's model configuration: what of it is honoured, and what is not.

use std::path::Path;
use std::sync::Arc;

use model::{Dimension, InstanceSettings, Package, Signature, TensorSpec};
use serde_json::Value as Json;

use super::textproto::{self, Message, Value};

/// The longest configuration that is read.
pub const MAX_LENGTH: usize = 1 << 20;

/// A model configuration, from `config.pbtxt` or from the repository API's JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The model's name, if it says one.
    pub name: Option<String>,
    /// The most rows of a batch; 0 means that shapes have no dimension for the batch.
    pub max_batch_size: Option<usize>,
    /// The inputs that it declares.
    pub inputs: Vec<Declared>,
    /// The outputs that it declares.
    pub outputs: Vec<Declared>,
    /// Copies that run side by side, over all its instance groups.
    pub instances: Option<usize>,
    /// Threads inside one run.
    pub threads: Option<usize>,
    /// The engine that it pins.
    pub engine: Option<String>,
    /// Which versions are to be served, if it says.
    pub versions: Option<Versions>,
    /// The name of the file in each version's folder.
    pub file_name: Option<String>,
    /// What it asks for that is not honoured, each with why or what to do.
    pub warnings: Vec<String>,
}

/// A tensor as a configuration declares it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// The type as the Open Inference Protocol spells it, such as `FP32`.
    pub datatype: String,
    /// Its dimensions, -1 where they vary; without the batch if `max_batch_size` is above 0.
    pub dims: Vec<i64>,
    /// The file in the model's folder that names its classes, one on each line.
    pub label_file: Option<String>,
    /// The classes that the file names, once it has been read.
    pub labels: Vec<String>,
}

/// Which versions of a model are to be served.
#[derive(Clone, Debug, PartialEq)]
pub enum Versions {
    /// All that are there.
    All,
    /// The newest so many.
    Latest(usize),
    /// These.
    Specific(Vec<String>),
}

impl Default for Versions {
    /// The newest one, as with Triton and TensorFlow Serving.
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl Config {
    /// Reads the text format of `config.pbtxt`. The error says in which line what is wrong.
    pub fn from_text(text: &str) -> Result<Self, String> {
        check_length(text)?;
        Self::read(&textproto::parse(text)?)
    }

    /// Reads the files that name classes. One that cannot be read is a warning; the model runs
    /// without it.
    pub(super) fn read_labels(&mut self, folder: &Path) {
        for output in &mut self.outputs {
            let Some(file) = &output.label_file else { continue };
            match label_file(folder, file) {
                Ok(labels) => output.labels = labels,
                Err(problem) => self
                    .warnings
                    .push(format!("config: output.label_filename: {file} is ignored: {problem}")),
            }
        }
    }

    /// Names the classes of a model's outputs as the configuration does, which takes precedence
    /// over the model's own names.
    pub fn name_classes(&self, package: &mut Package) {
        for output in self.outputs.iter().filter(|output| !output.labels.is_empty()) {
            let signature = &mut Arc::make_mut(&mut package.manifest).signature;
            if let Some(spec) = signature.outputs.iter_mut().find(|spec| *spec.name == *output.name)
            {
                spec.labels.clone_from(&output.labels);
                if let Some(Dimension::Fixed(classes)) =
                    spec.shape.as_ref().and_then(|dims| dims.last())
                {
                    spec.labels.truncate(*classes);
                }
            }
        }
    }

    /// Reads the JSON that the repository API's `parameters.config` carries.
    pub fn from_json(text: &str) -> Result<Self, String> {
        check_length(text)?;
        let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match message_of(json) {
            Some(Value::Message(message)) if text.trim_start().starts_with('{') => {
                let mut config = Self::read(&message)?;
                if config.outputs.iter().any(|output| output.label_file.is_some()) {
                    config.warn("output.label_filename", "is read from config.pbtxt alone");
                }
                Ok(config)
            }
            _ => Err("expected a JSON object".into()),
        }
    }

    /// How it asks to be run.
    pub fn settings(&self) -> InstanceSettings {
        InstanceSettings {
            engine: self.engine.clone(),
            instances: self.instances,
            threads: self.threads,
            max_batch_size: self.max_batch_size,
            providers: Vec::new(),
        }
    }

    /// Where what it declares differs from what the model is. The model is right: these are for
    /// the log.
    pub fn disagreements(&self, signature: &Signature) -> Vec<String> {
        let mut found = Vec::new();
        let rows = self.max_batch_size.is_some_and(|rows| rows > 0);
        let groups = [
            ("input", &self.inputs, &signature.inputs),
            ("output", &self.outputs, &signature.outputs),
        ];
        for (kind, declared, specs) in groups {
            for tensor in declared {
                let spec = specs.iter().find(|spec| *spec.name == *tensor.name);
                let problem = match spec {
                    None => Some("the model has none of that name".to_owned()),
                    Some(spec) => tensor.disagreement(spec, rows),
                };
                found.extend(
                    problem.map(|why| format!("config: {kind} \"{}\": {why}", tensor.name)),
                );
            }
        }
        if self.max_batch_size.is_some_and(|rows| rows > 1) && !signature.batched {
            found.push("config: max_batch_size: requests for this model are not stacked".into());
        }
        found
    }

    fn read(message: &Message) -> Result<Self, String> {
        let mut config = Self::default();
        for (name, value) in message {
            config.field(name, value).map_err(|problem| format!("\"{name}\": {problem}"))?;
        }
        Ok(config)
    }

    fn field(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            "name" => self.name = Some(text(value)?),
            "platform" | "backend" => self.engine(name, &text(value)?),
            "max_batch_size" => self.max_batch_size = Some(count(value)?),
            "input" => {
                let tensor = self.tensor(name, value)?;
                self.inputs.push(tensor);
            }
            "output" => {
                let tensor = self.tensor(name, value)?;
                self.outputs.push(tensor);
            }
            "instance_group" => self.instance_group(message(value)?)?,
            "dynamic_batching" => self.dynamic_batching(message(value)?),
            "version_policy" => self.versions = version_policy(message(value)?)?,
            "default_model_filename" => self.file_name = Some(file_name(&text(value)?)?),
            "parameters" => self.parameter(value)?,
            "model_warmup" => self.warn(name, "each version is warmed up before it serves anyway"),
            "response_cache" => self.warn(name, "answers are not cached"),
            "runtime" | "version" => {}
            _ => self.warn(name, "is not honoured"),
        }
        Ok(())
    }

    fn warn(&mut self, field: &str, why: &str) {
        let warning = format!("config: {field}: {why}");
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn engine(&mut self, field: &str, engine: &str) {
        match engine {
            // These only say that the model is an ONNX file; the engine is still chosen by speed.
            "onnxruntime" | "onnxruntime_onnx" | "" => {}
            "native" => self.engine = Some(engine.into()),
            _ => self.warn(field, &format!("\"{engine}\" is not known; the file is read as ONNX")),
        }
    }

    fn tensor(&mut self, kind: &str, value: &Value) -> Result<Declared, String> {
        let mut declared = Declared::default();
        for (name, value) in message(value)? {
            match name.as_str() {
                "name" => declared.name = text(value)?,
                "data_type" => {
                    let spelled = text(value)?;
                    let spelled = spelled.strip_prefix("TYPE_").unwrap_or(&spelled);
                    declared.datatype =
                        if spelled == "STRING" { "BYTES" } else { spelled }.to_owned();
                }
                "dims" => declared.dims.push(integer(value)?),
                "label_filename" if kind == "output" => {
                    let file = text(value)?;
                    declared.label_file =
                        (!file.is_empty()).then(|| file_name(&file)).transpose()?;
                }
                "format" | "optional" => {}
                other => self.warn(&format!("{kind}.{other}"), "is not honoured"),
            }
        }
        Ok(declared)
    }

    fn instance_group(&mut self, group: &Message) -> Result<(), String> {
        let mut copies = 1;
        for (name, value) in group {
            match name.as_str() {
                "count" => copies = count(value)?,
                "kind" if matches!(text(value)?.as_str(), "KIND_CPU" | "KIND_AUTO") => {}
                "name" => {}
                "kind" | "gpus" => self.warn(
                    &format!("instance_group.{name}"),
                    "devices are chosen with --providers, not here",
                ),
                other => self.warn(&format!("instance_group.{other}"), "is not honoured"),
            }
        }
        if copies == 0 {
            return Err("expected a count of at least 1".into());
        }
        self.instances = Some(self.instances.unwrap_or(0).saturating_add(copies));
        Ok(())
    }

    fn dynamic_batching(&mut self, batching: &Message) {
        for (name, _) in batching {
            let why = match name.as_str() {
                "preferred_batch_size" | "max_queue_delay_microseconds" => {
                    "is not needed: batches are sized by measured cost and never wait"
                }
                _ => "is not honoured",
            };
            self.warn(&format!("dynamic_batching.{name}"), why);
        }
    }

    /// The text format lists key and value, JSON has the key as the name.
    fn parameter(&mut self, value: &Value) -> Result<(), String> {
        let fields = message(value)?;
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, v)| v);
        let Some(key) = field("key") else {
            return fields.iter().try_for_each(|(key, value)| self.set_parameter(key, value));
        };
        match field("value") {
            Some(value) => self.set_parameter(&text(key)?, value),
            None => Ok(()),
        }
    }

    fn set_parameter(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let value = match value {
            Value::Message(fields) => fields.iter().find(|(name, _)| name == "string_value"),
            _ => None,
        };
        match (key, value) {
            ("engine", Some((_, name))) => self.engine = Some(text(name)?),
            ("threads", Some((_, number))) => {
                self.threads = Some(count(number).map_err(|problem| format!("{key}: {problem}"))?);
            }
            _ => self.warn(&format!("parameters.{key}"), "is not honoured"),
        }
        Ok(())
    }
}

impl Declared {
    fn disagreement(&self, spec: &TensorSpec, rows: bool) -> Option<String> {
        if !self.datatype.is_empty() && self.datatype != spec.datatype.as_str() {
            return Some(format!("declared as {}, the model has {}", self.datatype, spec.datatype));
        }
        let dims = spec.shape.as_ref()?;
        if let Some(Dimension::Fixed(classes)) = dims.last()
            && !self.labels.is_empty()
            && self.labels.len() != *classes
        {
            let named = self.labels.len();
            return Some(format!("label_filename names {named} classes, the model has {classes}"));
        }
        let declared: Vec<i64> =
            rows.then_some(-1).into_iter().chain(self.dims.iter().copied()).collect();
        let fits = |(declared, dim): (&i64, &Dimension)| {
            *declared == -1 || dim.extent() == -1 || *declared == dim.extent()
        };
        let same = declared.len() == dims.len() && declared.iter().zip(dims).all(fits);
        let extents = spec.extents();
        (!same && !self.dims.is_empty())
            .then(|| format!("declared with shape {declared:?}, the model has {extents:?}"))
    }
}

/// The lines of a file that is in the folder, where links lead nowhere else.
fn label_file(folder: &Path, name: &str) -> Result<Vec<String>, String> {
    let problem = |error: std::io::Error| error.to_string();
    let path = folder.join(name).canonicalize().map_err(problem)?;
    if !path.starts_with(folder.canonicalize().map_err(problem)?) {
        return Err("it is a link that leaves the model's folder".into());
    }
    let metadata = std::fs::metadata(&path).map_err(problem)?;
    if !metadata.is_file() || metadata.len() > MAX_LENGTH as u64 {
        return Err(format!("expected a file of at most {MAX_LENGTH} bytes"));
    }
    let text = std::fs::read_to_string(&path).map_err(problem)?;
    check_length(&text)?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn version_policy(policy: &Message) -> Result<Option<Versions>, String> {
    let Some((name, value)) = policy.first() else { return Ok(None) };
    let fields = message(value)?;
    match name.as_str() {
        "all" => Ok(Some(Versions::All)),
        "latest" => {
            let number = fields.iter().find(|(name, _)| name == "num_versions");
            match number.map_or(Ok(1), |(_, value)| count(value))? {
                0 => Err("expected num_versions of at least 1".into()),
                newest => Ok(Some(Versions::Latest(newest))),
            }
        }
        "specific" => {
            let listed = fields.iter().filter(|(name, _)| name == "versions");
            let listed: Vec<String> =
                listed.map(|(_, value)| text(value)).collect::<Result<_, _>>()?;
            if listed.is_empty() {
                Err("lists no versions".into())
            } else {
                Ok(Some(Versions::Specific(listed)))
            }
        }
        other => Err(format!("\"{other}\" is not known; expected all, latest or specific")),
    }
}

fn check_length(text: &str) -> Result<(), String> {
    if text.len() > MAX_LENGTH { Err(format!("is longer than {MAX_LENGTH} bytes")) } else { Ok(()) }
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Word(text) | Value::Text(text) => Ok(text.clone()),
        Value::Message(_) => Err("expected a single value, got a message".into()),
    }
}

fn message(value: &Value) -> Result<&Message, String> {
    match value {
        Value::Message(message) => Ok(message),
        Value::Word(text) | Value::Text(text) => Err(format!("expected a message, got \"{text}\"")),
    }
}

fn integer(value: &Value) -> Result<i64, String> {
    let text = text(value)?;
    text.parse().map_err(|_| format!("expected an integer, got \"{text}\""))
}

fn count(value: &Value) -> Result<usize, String> {
    let number = integer(value)?;
    usize::try_from(number).map_err(|_| format!("expected a number from 0 on, got {number}"))
}

fn file_name(name: &str) -> Result<String, String> {
    let plain =
        !name.is_empty() && !name.contains(['/', '\\', '\0']) && name != "." && name != "..";
    if plain {
        Ok(name.to_owned())
    } else {
        Err(format!("expected a file name, got \"{}\"", name.escape_debug()))
    }
}

/// JSON as a message: lists become repeated fields, `camelCase` becomes `snake_case`. The JSON
/// reader has limited the depth. `None` for a null, which means "left out".
fn message_of(json: Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(flag) => Value::Word(flag.to_string()),
        Json::Number(number) => Value::Word(number.to_string()),
        Json::String(text) => Value::Text(text),
        // A list in a list has no counterpart; its elements are taken as they come.
        Json::Array(list) => Value::Message(
            list.into_iter().filter_map(message_of).map(|v| (String::new(), v)).collect(),
        ),
        Json::Object(object) => {
            let mut fields = Vec::new();
            for (name, json) in object {
                let name = snake_case(&name);
                match json {
                    Json::Array(list) => {
                        fields.extend(
                            list.into_iter().filter_map(message_of).map(|v| (name.clone(), v)),
                        );
                    }
                    json => fields.extend(message_of(json).map(|value| (name, value))),
                }
            }
            Value::Message(fields)
        }
    })
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

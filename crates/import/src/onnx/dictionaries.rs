//! Inputs that are maps: one input for each key that the model knows.

use std::collections::HashSet;

use model::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, data_type, tensor_shape_proto,
    type_proto,
};

use super::{graph, invalid, unsupported};
use crate::Error;

/// The most keys that become inputs: a signature is read by people, too.
const MAX_KEYS: usize = 1024;

/// Replaces each input that is a map and goes into `DictVectorizer`s.
///
/// No serving protocol can carry a map. `DictVectorizer` looks up the keys of its vocabulary and
/// writes their values side by side, so the same is said by an input `[rows]` for each key, named
/// after it, which `Flatten` and `Concat` join: row i is what the i-th map was. All are required. A map may leave keys out; but what is left out of a request is more often misspelt
/// than meant as 0, and rows with a default could not be stacked.
///
/// Returns what to tell of it.
pub fn to_columns(model: &mut ModelProto) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    let Some(graph) = &mut model.graph else { return Ok(notes) };
    let maps: Vec<(String, type_proto::Map)> = graph.input.iter().filter_map(map_input).collect();
    for (name, map) in maps {
        let place = format!("input \"{name}\"");
        let count = replace(graph, &name, &map).map_err(|error| error.at(place))?;
        notes.push(format!(
            "input \"{name}\" was a map (DictVectorizer); it is served as {count} inputs, one \
             for each key"
        ));
    }
    if !notes.is_empty() {
        // They would speak of the single row that a map is.
        graph.value_info.clear();
        if !model.opset_import.iter().any(|set| set.domain.is_empty()) {
            // The first with `Concat` as it is used here and still understood by everyone.
            model.opset_import.push(OperatorSetIdProto { domain: String::new(), version: 13 });
        }
    }
    Ok(notes)
}

fn map_input(input: &ValueInfoProto) -> Option<(String, type_proto::Map)> {
    match input.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::MapType(map) => Some((input.name.clone(), type_proto::Map::clone(map))),
        _ => None,
    }
}

/// Replaces one; returns how many inputs it became.
fn replace(graph: &mut GraphProto, name: &str, map: &type_proto::Map) -> Result<usize, Error> {
    let mut keys: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    let mut vectorizers = Vec::new();
    for (index, node) in graph.node.iter().enumerate() {
        let mut reads = Vec::new();
        graph::reads(node, &mut reads);
        if !reads.contains(&name) {
            continue;
        }
        if node.op_type != "DictVectorizer" || node.domain != "ai.onnx.ml" || node.input != [name] {
            return Err(only_vectorizers());
        }
        let vocabulary = vocabulary(node, map.key_type)
            .map_err(|error| error.at(graph::describe(index, node)))?;
        keys.extend(vocabulary.iter().filter(|key| seen.insert((*key).clone())).cloned());
        vectorizers.push((index, vocabulary));
    }
    if vectorizers.is_empty() || graph.output.iter().any(|output| output.name == name) {
        return Err(only_vectorizers());
    }
    if keys.len() > MAX_KEYS {
        return Err(unsupported(format!(
            "is a map with a vocabulary of {} keys, and each becomes an input; at most {MAX_KEYS} \
             are served. Export the model without its DictVectorizer: it then takes the matrix that \
             the vectorizer makes",
            keys.len()
        )));
    }
    let prefix = prefix(graph, name, &keys)?;
    let column = column(map)?;
    for (index, vocabulary) in vectorizers {
        let node = &mut graph.node[index];
        "Concat".clone_into(&mut node.op_type);
        node.domain.clear();
        node.input = vocabulary.iter().map(|key| column_name(name, key)).collect();
        node.attribute = vec![first_axis()];
    }
    let flattened = keys.iter().map(|key| NodeProto {
        op_type: "Flatten".into(),
        input: vec![format!("{prefix}{key}")],
        output: vec![column_name(name, key)],
        attribute: vec![first_axis()],
        ..Default::default()
    });
    graph.node.splice(0..0, flattened.collect::<Vec<_>>());
    let columns = keys.iter().map(|key| ValueInfoProto {
        name: format!("{prefix}{key}"),
        r#type: Some(column.clone()),
        ..Default::default()
    });
    let at = graph.input.iter().position(|input| input.name == name).unwrap_or(0);
    graph.input.splice(at..=at, columns.collect::<Vec<_>>());
    Ok(keys.len())
}

/// What the graph calls the column `[rows, 1]` of a key.
fn column_name(map: &str, key: &str) -> String {
    format!("{map}/{key}/column")
}

fn first_axis() -> AttributeProto {
    AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Int as i32,
        i: 1,
        ..Default::default()
    }
}

fn only_vectorizers() -> Error {
    unsupported(
        "is a map, which no serving protocol can carry; one that goes into DictVectorizer and \
         nowhere else is served as an input for each key",
    )
}

/// The keys in the order of the vectorizer's columns.
fn vocabulary(node: &NodeProto, key_type: i32) -> Result<Vec<String>, Error> {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let strings = attribute("string_vocabulary").map_or(&[][..], |found| &found.strings);
    let integers = attribute("int64_vocabulary").map_or(&[][..], |found| &found.ints);
    match (key_type, strings, integers) {
        (data_type::STRING, [_, ..], []) => strings
            .iter()
            .map(|key| std::str::from_utf8(key).map(str::to_owned))
            .collect::<Result<_, _>>()
            .map_err(|_| invalid("has a key that is not UTF-8")),
        (data_type::INT64, [], [_, ..]) => Ok(integers.iter().map(i64::to_string).collect()),
        _ => Err(invalid("expected a vocabulary of the type of the map's keys, and only one")),
    }
}

/// What goes before the keys so that they are names that the graph has not given away.
fn prefix(graph: &GraphProto, name: &str, keys: &[String]) -> Result<String, Error> {
    let mut taken = HashSet::new();
    names(graph, &mut taken);
    let free = |prefix: &str| {
        keys.iter().all(|key| {
            let name = format!("{prefix}{key}");
            !name.is_empty() && !taken.contains(name.as_str())
        })
    };
    let columns_free = keys.iter().all(|key| !taken.contains(column_name(name, key).as_str()));
    [String::new(), format!("{name}.")]
        .into_iter()
        .find(|prefix| columns_free && free(prefix))
        .ok_or_else(|| {
            unsupported("is a map with keys that other values of the model are called by")
        })
}

/// Every name that a graph uses, those of the graphs inside it included.
fn names<'a>(graph: &'a GraphProto, taken: &mut HashSet<&'a str>) {
    taken.extend(graph.input.iter().chain(&graph.output).map(|value| value.name.as_str()));
    taken.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    for node in &graph.node {
        taken.extend(node.input.iter().chain(&node.output).map(String::as_str));
        graph::subgraphs(node).for_each(|inner| names(inner, taken));
    }
}

/// `[?]` of the map's values.
fn column(map: &type_proto::Map) -> Result<TypeProto, Error> {
    use tensor_shape_proto::Dimension;
    let kind = map.value_type.as_ref().and_then(|kind| kind.value.as_ref());
    let Some(type_proto::Value::TensorType(values)) = kind else {
        return Err(unsupported("is a map of something else than tensors"));
    };
    let shape = TensorShapeProto { dim: vec![Dimension::default()] };
    let tensor = type_proto::Tensor { elem_type: values.elem_type, shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    Ok(TypeProto { value, ..Default::default() })
}

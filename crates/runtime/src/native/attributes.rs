//! Reading a node's attributes, with the type that the operator's specification gives them.

use bytes::Bytes;
use model::Tensor;
use model::onnx::attribute_proto::AttributeType;
use model::onnx::{AttributeProto, GraphProto, NodeProto};

use crate::Error;

/// A node's attributes.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(&'a NodeProto);

impl<'a> Attributes<'a> {
    pub(super) fn of(node: &'a NodeProto) -> Self {
        Self(node)
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.0.attribute.iter().any(|attribute| attribute.name == name)
    }

    /// Refuses any attribute that is not listed, so that none is ignored in silence.
    pub(super) fn only(self, known: &[&str]) -> Result<(), Error> {
        match self.0.attribute.iter().find(|a| !known.contains(&a.name.as_str())) {
            None => Ok(()),
            Some(other) => Err(Error::unsupported(format!(
                "attribute \"{}\" is not supported by the native engine",
                other.name
            ))),
        }
    }

    fn get(self, name: &str, wanted: AttributeType) -> Result<Option<&'a AttributeProto>, Error> {
        let Some(found) = self.0.attribute.iter().find(|attribute| attribute.name == name) else {
            return Ok(None);
        };
        // The first IR version had no type field: 0 is "not said".
        if found.r#type != 0 && found.r#type != wanted as i32 {
            let got = AttributeType::try_from(found.r#type)
                .map_or_else(|_| found.r#type.to_string(), |kind| format!("{kind:?}"));
            let message = format!("attribute \"{name}\": expected {wanted:?}, got {got}");
            return Err(Error::invalid(message));
        }
        Ok(Some(found))
    }

    pub(super) fn int(self, name: &str) -> Result<Option<i64>, Error> {
        Ok(self.get(name, AttributeType::Int)?.map(|a| a.i))
    }

    pub(super) fn int_or(self, name: &str, default: i64) -> Result<i64, Error> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    pub(super) fn flag(self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.int(name)?.map_or(default, |value| value != 0))
    }

    pub(super) fn float(self, name: &str) -> Result<Option<f32>, Error> {
        Ok(self.get(name, AttributeType::Float)?.map(|a| a.f))
    }

    pub(super) fn float_or(self, name: &str, default: f32) -> Result<f32, Error> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    pub(super) fn bytes(self, name: &str) -> Result<Option<&'a Bytes>, Error> {
        Ok(self.get(name, AttributeType::String)?.map(|a| &a.s))
    }

    pub(super) fn string(self, name: &str) -> Result<Option<&'a str>, Error> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::invalid(format!("attribute \"{name}\" is not UTF-8")))
    }

    pub(super) fn ints(self, name: &str) -> Result<&'a [i64], Error> {
        Ok(self.get(name, AttributeType::Ints)?.map_or(&[], |a| &a.ints))
    }

    pub(super) fn floats(self, name: &str) -> Result<&'a [f32], Error> {
        Ok(self.get(name, AttributeType::Floats)?.map_or(&[], |a| &a.floats))
    }

    pub(super) fn strings(self, name: &str) -> Result<&'a [Bytes], Error> {
        Ok(self.get(name, AttributeType::Strings)?.map_or(&[], |a| &a.strings))
    }

    pub(super) fn tensor(self, name: &str) -> Result<Option<Tensor>, Error> {
        let Some(found) = self.get(name, AttributeType::Tensor)? else { return Ok(None) };
        let Some(proto) = &found.t else {
            return Err(Error::invalid(format!("attribute \"{name}\" holds no tensor")));
        };
        let read = proto.to_tensor();
        read.map(Some).map_err(|m| Error::invalid(format!("attribute \"{name}\": {m}")))
    }

    /// The graphs that the node carries: the branches of an `If`, the body of a `Loop`.
    pub(super) fn graphs(self) -> impl Iterator<Item = &'a GraphProto> {
        self.0.attribute.iter().flat_map(|a| a.g.iter().map(|g| &**g).chain(&a.graphs))
    }
}

//! Looks over the encoded bytes before they are decoded.
//!
//! Decoding turns a message of two bytes into a structure of some hundred, so a small file could
//! ask for a hundred times its size in memory. This walk follows the lengths in the file, without
//! allocating, adds up what decoding would take, and says where a damaged file breaks off.

use std::mem::size_of;

use bytes::Bytes;
use model::onnx::{self, tensor_shape_proto, type_proto};

/// The messages of the format that have further messages or lists in them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    ElementType,
    Map,
    Shape,
    Dimension,
    Entry,
    OperatorSet,
    Function,
}

/// What a field holds, as far as it matters for memory.
enum Field {
    Message(Kind),
    /// A list of numbers of this many bytes each once decoded, packed into at least this many.
    Numbers {
        decoded: usize,
        packed: usize,
    },
    Text,
    Other,
}

/// What decoding may take: generous for any real model (short strings and small integers grow
/// up to elevenfold), out of reach for a bomb.
fn budget(length: usize) -> usize {
    (32 << 20) + length.saturating_mul(24)
}

/// The deepest nesting of messages, as the decoder has it.
const MAX_DEPTH: usize = 100;

/// Walks a whole model; the error says what is damaged and where.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut walk = Walk { bytes, left: budget(bytes.len()) };
    walk.message(Kind::Model, 0, bytes.len(), 0)
}

struct Walk<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl Walk<'_> {
    fn message(
        &mut self,
        kind: Kind,
        start: usize,
        end: usize,
        depth: usize,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("at byte {start} messages are nested more than {MAX_DEPTH} deep"));
        }
        let mut at = start;
        while at < end {
            let field_start = at;
            let key = self.varint(&mut at, end)?;
            let (tag, wire) = (key >> 3, key & 7);
            let field = kind.field(tag);
            match wire {
                0 => {
                    self.varint(&mut at, end)?;
                }
                1 | 5 => {
                    at += if wire == 1 { 8 } else { 4 };
                    if at > end {
                        return Err(format!("it is cut off in a number at byte {field_start}"));
                    }
                }
                2 => {
                    let length = self.varint(&mut at, end)?;
                    let left = end - at;
                    let length = usize::try_from(length).ok().filter(|length| *length <= left);
                    let length = length.ok_or_else(|| {
                        format!(
                            "it is cut off or damaged: field {tag} of a {kind:?} at byte \
                             {field_start} is longer than the {left} bytes that are left for it"
                        )
                    })?;
                    if let Field::Message(inner) = field {
                        self.message(inner, at, at + length, depth + 1)?;
                    }
                    self.spend(&field, length)?;
                    at += length;
                    continue;
                }
                _ => return Err(format!("byte {field_start} begins no field")),
            }
            if let Field::Numbers { decoded, .. } = field {
                self.spend_bytes(decoded)?;
            }
        }
        Ok(())
    }

    fn spend(&mut self, field: &Field, length: usize) -> Result<(), String> {
        self.spend_bytes(match field {
            Field::Message(kind) => kind.size(),
            Field::Numbers { decoded, packed } => (length / packed).saturating_mul(*decoded),
            Field::Text => size_of::<Bytes>() + length,
            Field::Other => 0,
        })
    }

    fn spend_bytes(&mut self, bytes: usize) -> Result<(), String> {
        // A list that grows holds up to twice what it needs.
        self.left = self.left.checked_sub(bytes.saturating_mul(2)).ok_or_else(|| {
            "it would take far more memory than its size; no real model is like that".to_owned()
        })?;
        Ok(())
    }

    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            if *at >= end {
                return Err(format!("it is cut off at byte {at}"));
            }
            let byte = self.bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift.min(63);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("the number before byte {at} is too long"))
    }
}

impl Kind {
    fn field(self, tag: u64) -> Field {
        use Kind::*;
        let numbers = |decoded, packed| Field::Numbers { decoded, packed };
        match (self, tag) {
            (Model, 7) | (Attribute, 6 | 11) => Field::Message(Graph),
            (Model, 8) | (Function, 9) => Field::Message(OperatorSet),
            (Model, 14) | (Tensor, 13) => Field::Message(Entry),
            (Model, 25) => Field::Message(Function),
            (Graph, 1) | (Function, 7) => Field::Message(Node),
            (Graph, 5) | (Attribute, 5 | 10) | (SparseTensor, 1 | 2) => Field::Message(Tensor),
            (Graph, 11..=13) => Field::Message(ValueInfo),
            (Graph, 15) | (Attribute, 22 | 23) => Field::Message(SparseTensor),
            (Node, 5) | (Function, 11) => Field::Message(Attribute),
            (ValueInfo, 2) | (Attribute, 14 | 15) | (ElementType, 1) | (Map, 2) => {
                Field::Message(Type)
            }
            (Type, 1 | 8) => Field::Message(TensorType),
            (Type, 4 | 9) => Field::Message(ElementType),
            (Type, 5) => Field::Message(Map),
            (TensorType, 2) => Field::Message(Shape),
            (Shape, 1) => Field::Message(Dimension),
            (Attribute, 7) | (Tensor, 4) => numbers(4, 4),
            (Attribute, 8) | (Tensor, 1 | 7 | 11) | (SparseTensor, 3) => numbers(8, 1),
            (Tensor, 5) => numbers(4, 1),
            (Tensor, 10) => numbers(8, 8),
            (Node, 1..=4 | 7 | 8)
            | (Attribute, 1 | 4 | 9 | 21)
            | (Tensor, 6 | 8)
            | (Graph, 2 | 10)
            | (Function, 1 | 4..=6 | 10 | 13)
            | (Model, 2..=4 | 6)
            | (ValueInfo, 1 | 3)
            | (Type, 6)
            | (Dimension, 2 | 3)
            | (Entry, 1 | 2)
            | (OperatorSet, 1) => Field::Text,
            _ => Field::Other,
        }
    }

    /// What one takes once it is decoded, without what it points to.
    fn size(self) -> usize {
        match self {
            Self::Model => size_of::<onnx::ModelProto>(),
            Self::Graph => size_of::<onnx::GraphProto>(),
            Self::Node => size_of::<onnx::NodeProto>(),
            Self::Attribute => size_of::<onnx::AttributeProto>(),
            Self::Tensor => size_of::<onnx::TensorProto>(),
            Self::SparseTensor => size_of::<onnx::SparseTensorProto>(),
            Self::ValueInfo => size_of::<onnx::ValueInfoProto>(),
            Self::Type => size_of::<onnx::TypeProto>(),
            Self::TensorType => size_of::<type_proto::Tensor>(),
            Self::ElementType => size_of::<type_proto::Sequence>(),
            Self::Map => size_of::<type_proto::Map>(),
            Self::Shape => size_of::<onnx::TensorShapeProto>(),
            Self::Dimension => size_of::<tensor_shape_proto::Dimension>(),
            Self::Entry => size_of::<onnx::StringStringEntryProto>(),
            Self::OperatorSet => size_of::<onnx::OperatorSetIdProto>(),
            Self::Function => size_of::<onnx::FunctionProto>(),
        }
    }
}

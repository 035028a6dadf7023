//! Tensors whose contents lie in other files of the model's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use model::onnx::{DataLocation, TensorProto};

use super::{invalid, tensors};
use crate::{Error, MAX_SIZE};

/// The files that were read, by the location that the model calls them.
pub struct External<'a> {
    /// The model's own file, whose folder the locations are in.
    file: Option<&'a Path>,
    files: BTreeMap<String, Bytes>,
    total: u64,
}

impl<'a> External<'a> {
    /// Nothing read yet; `size` bytes of the limit are used up by the model itself.
    pub fn new(file: Option<&'a Path>, size: u64) -> Self {
        Self { file, files: BTreeMap::new(), total: size }
    }

    /// Puts the contents into the tensor, as if they had been in the model's own file.
    pub fn read_in(&mut self, tensor: &mut TensorProto) -> Result<(), Error> {
        if tensor.data_location != DataLocation::External as i32 {
            return Ok(());
        }
        let size = tensors::byte_size(tensor)?;
        let entry = |key: &str| tensor.external_data.iter().rev().find(|entry| entry.key == key);
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(entry) => entry.value.parse::<usize>().map(Some).map_err(|_| {
                invalid(format!("its external {key} \"{}\" is not a number", entry.value))
            }),
        };
        let location = entry("location").map(|entry| entry.value.clone());
        let location = location.ok_or_else(|| invalid("is stored outside, but in no file"))?;
        let offset = number("offset")?.unwrap_or(0);
        if let Some(length) = number("length")?.filter(|length| *length != size) {
            let dims = &tensor.dims;
            return Err(invalid(format!(
                "has dimensions {dims:?}, which take {size} bytes, but its external length is {length}"
            )));
        }
        let bytes = self.open(&location)?;
        let end = offset.checked_add(size).filter(|end| *end <= bytes.len()).ok_or_else(|| {
            invalid(format!(
                "takes {size} bytes from byte {offset} of \"{location}\", which has only {}",
                bytes.len()
            ))
        })?;
        tensor.raw_data = Some(bytes.slice(offset..end));
        tensor.external_data.clear();
        tensor.data_location = DataLocation::Default as i32;
        Ok(())
    }

    /// The files that were read, ordered by location.
    pub fn files(&self) -> &BTreeMap<String, Bytes> {
        &self.files
    }

    /// Bytes read, the model's own file included.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn open(&mut self, location: &str) -> Result<Bytes, Error> {
        if let Some(bytes) = self.files.get(location) {
            return Ok(bytes.clone());
        }
        let Some(file) = self.file else {
            return Err(invalid(format!(
                "is stored in the file \"{location}\", but this model was not read from a folder; \
                 save the model with its weights inside, or serve it from its folder"
            )));
        };
        let path = resolve(file, location)?;
        let bytes = self.read(&path).map_err(|error| error.at(format!("\"{location}\"")))?;
        self.files.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn read(&mut self, path: &Path) -> Result<Bytes, Error> {
        let failed = |error: std::io::Error| invalid(error.to_string());
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(invalid("is not a regular file"));
        }
        let total = self.total.saturating_add(metadata.len());
        if total > MAX_SIZE {
            return Err(invalid(format!(
                "brings the model to {total} bytes; at most {MAX_SIZE} are read"
            )));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(metadata.len()).read_to_end(&mut bytes).map_err(failed)?;
        self.total = self.total.saturating_add(bytes.len() as u64);
        Ok(bytes.into())
    }
}

/// The file that a location means, if it lies in the folder of the model's file.
fn resolve(file: &Path, location: &str) -> Result<PathBuf, Error> {
    let refuse = |why: &str| {
        Err(invalid(format!(
            "is stored in \"{}\", which {why}; external data has to lie in the model's own folder",
            location.escape_debug()
        )))
    };
    let bytes = location.as_bytes();
    if location.is_empty() {
        return refuse("names no file");
    }
    if location.contains(['\\', '\0']) {
        return refuse("has a backslash or a zero byte in it");
    }
    if bytes.get(1) == Some(&b':') && bytes[0].is_ascii_alphabetic() {
        return refuse("names a drive");
    }
    let relative = Path::new(location);
    let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if relative.is_absolute() {
        return refuse("is an absolute path");
    }
    if !relative.components().all(inside) {
        return refuse("leads out of the folder");
    }
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| invalid(error.to_string()))?;
    match folder.join(relative).canonicalize() {
        Ok(path) if path.starts_with(&folder) => Ok(path),
        Ok(_) => refuse("is a link that leads out of the folder"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            refuse("is not there; copy it beside the model")
        }
        Err(error) => refuse(&format!("cannot be opened ({error})")),
    }
}

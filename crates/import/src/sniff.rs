//! What a file that is not an ONNX model looks like, and what would help.

/// Recognises files that people often have where an ONNX model was expected.
///
/// Only called once a file did not decode as ONNX, or for signs that no ONNX file can have; so
/// a wrong guess costs a worse message, never a model.
pub fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(1024)];
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |prefix: &[u8]| start.starts_with(prefix);
    let contains = |needle: &[u8]| bytes.windows(needle.len()).take(1 << 16).any(|w| w == needle);
    let lower = text.get(..text.len().min(256)).unwrap_or("").to_ascii_lowercase();
    Some(if bytes.is_empty() {
        "it is empty; was the download or the export cut off?"
    } else if text.starts_with("version https://git-lfs") {
        "it is a git-lfs pointer, not the model itself; run `git lfs pull` to fetch it"
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        "it is a web page, not a model; the download link probably led to an error or login page"
    } else if contains(b"<PMML") && text.starts_with('<') {
        "it is a PMML document, which cannot be served yet; export the model to ONNX instead"
    } else if text.starts_with("<?xml") || text.starts_with('<') {
        "it is an XML document; if it is an OpenVINO model, export the original model to ONNX"
    } else if begins(b"PK\x03\x04") {
        zip(bytes)
    } else if begins(b"\x80\x02")
        || begins(b"\x80\x03")
        || begins(b"\x80\x04")
        || begins(b"\x80\x05")
    {
        "it is a Python pickle, which runs code when it is loaded and is never accepted; \
         export the model to ONNX (skl2onnx for scikit-learn, torch.onnx.export for PyTorch)"
    } else if begins(b"\x1f\x8b")
        || begins(b"BZh")
        || begins(b"\xfd7zXZ")
        || begins(b"\x28\xb5\x2f\xfd")
    {
        "it is a compressed archive; unpack it and give the .onnx file inside"
    } else if start.get(257..262) == Some(b"ustar") {
        "it is a tar archive; unpack it and give the .onnx file inside"
    } else if begins(b"\x89HDF\r\n\x1a\n") {
        "it is an HDF5 file, perhaps a Keras model; convert it to ONNX with tf2onnx"
    } else if start.get(4..8) == Some(b"TFL3") {
        "it is a TensorFlow Lite model; convert it to ONNX with tf2onnx --tflite"
    } else if start.get(4..8) == Some(b"ORTM") {
        "it is ONNX Runtime's own ORT format; give the .onnx file that it was made from"
    } else if begins(b"GGUF") {
        "it is a GGUF model for llama.cpp, which cannot be served"
    } else if begins(b"tree\n") || text.starts_with("tree\nversion=") {
        "it is a LightGBM text model; convert it to ONNX with onnxmltools"
    } else if begins(b"\x7fELF") || begins(b"MZ") {
        "it is a program or a compiled engine, not a model"
    } else if text.starts_with('{') && contains(b"\"learner\"") || begins(b"{L\x00") {
        "it is an XGBoost model; convert it to ONNX with onnxmltools"
    } else if text.starts_with('{') || text.starts_with('[') {
        "it is a JSON document, not a model"
    } else if start.get(8) == Some(&b'{') && contains(b"data_offsets") {
        "it is a safetensors file, which holds weights but no graph; export the model to ONNX"
    } else if contains(b"saved_model") || contains(b"serving_default") {
        "it is a TensorFlow SavedModel, which cannot be served yet; convert it to ONNX with \
         tf2onnx --saved-model"
    } else if bytes.iter().take(1024).all(|b| *b == 0) {
        "it holds only zeros; was the download or the copy cut off?"
    } else {
        return None;
    })
}

/// Zip archives, by the names of what is in them.
fn zip(bytes: &[u8]) -> &'static str {
    let contains = |needle: &[u8]| bytes.windows(needle.len()).take(1 << 16).any(|w| w == needle);
    if contains(b"constants.pkl") || contains(b"/code/") {
        "it is a TorchScript archive, which cannot be served yet; export the model with \
         torch.onnx.export"
    } else if contains(b"data.pkl") {
        "it is a PyTorch checkpoint (.pt), a pickle that runs code when it is loaded and is never \
         accepted; export the model with torch.onnx.export"
    } else if contains(b"MAR-INF") {
        "it is a TorchServe archive (.mar), which carries code that is never run; export the model \
         with torch.onnx.export"
    } else if contains(b"config.json") && contains(b"model.weights.h5") {
        "it is a Keras model; convert it to ONNX with tf2onnx or model.export(format=\"onnx\")"
    } else {
        "it is a zip archive; unpack it and give the .onnx file inside"
    }
}

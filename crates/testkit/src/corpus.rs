//! The inputs that fuzzing keeps, as files.

use std::path::{Path, PathBuf};

/// The files of a folder: `.hex` holds bytes as hexadecimal, so that they survive as text; any other
/// file is what it is. In the order of their names, which decides what a fixed seed makes of them.
pub fn read(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the folder of the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let contents = std::fs::read(path).expect("a file of the corpus");
        if path.extension().is_none_or(|extension| extension != "hex") {
            return contents;
        }
        let digits: Vec<u8> = contents.into_iter().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).expect("digits are ASCII");
            u8::from_str_radix(text, 16).expect("two hexadecimal digits")
        };
        digits.chunks_exact(2).map(byte).collect()
    };
    paths.iter().map(read).collect()
}

/// Bytes as such a file has them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Weights in files of their own stay in the model's folder.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use model::Program;
use model::onnx::StringStringEntryProto;

use crate::support::{refusal, with_tensor};

fn outside(entries: &[(&str, &str)]) -> Bytes {
    with_tensor(|tensor| {
        tensor.raw_data = None;
        tensor.data_location = 1;
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).into(),
            value: (*value).into(),
        };
        tensor.external_data = entries.iter().map(entry).collect();
    })
}

fn open(folder: &Path, entries: &[(&str, &str)]) -> Result<model::Package, String> {
    let path = folder.join("model.onnx");
    fs::write(&path, outside(entries)).unwrap();
    import::open(&path).map_err(|error| error.to_string())
}

#[test]
fn it_is_read_in() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/w.bin"), &numbers).unwrap();
    let entries = [("location", "data/w.bin"), ("offset", "8"), ("length", "16")];
    let package = open(folder.path(), &entries).unwrap();
    let Program::Onnx(program) = &package.program;
    let tensor = program.graph.as_ref().unwrap().initializer[0].to_tensor().unwrap();
    assert_eq!(tensor.as_slice::<f32>().unwrap(), [2.0, 3.0, 4.0, 5.0]);
    let main = outside(&entries).len() as u64;
    assert_eq!(package.manifest.size, main + 24);
    assert!(package.manifest.signature.batched);

    // Other weights are another model; a copy elsewhere is the same.
    let again = open(folder.path(), &entries).unwrap();
    assert_eq!(package.manifest.digest, again.manifest.digest);
    fs::write(folder.path().join("data/w.bin"), [1; 24]).unwrap();
    let other = open(folder.path(), &entries).unwrap();
    assert_ne!(package.manifest.digest, other.manifest.digest);
}

#[test]
fn it_cannot_leave_the_folder() {
    let around = tempfile::tempdir().unwrap();
    fs::write(around.path().join("secret.bin"), [0; 16]).unwrap();
    let folder = around.path().join("model");
    fs::create_dir(&folder).unwrap();
    let absolute = around.path().join("secret.bin");
    let cases = [
        ("../secret.bin", "leads out of the folder"),
        ("x/../../secret.bin", "leads out of the folder"),
        (absolute.to_str().unwrap(), "is an absolute path"),
        ("C:secret.bin", "names a drive"),
        ("..\\secret.bin", "backslash"),
        ("a\0b", "zero byte"),
        ("", "names no file"),
        ("absent.bin", "is not there"),
        (".", "is not a regular file"),
    ];
    for (location, expected) in cases {
        let message = open(&folder, &[("location", location)]).unwrap_err();
        assert!(message.contains(expected), "{location:?}: {message}");
        assert!(message.contains("tensor \"w\""), "{message}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&absolute, folder.join("link.bin")).unwrap();
        let message = open(&folder, &[("location", "link.bin")]).unwrap_err();
        assert!(message.contains("a link that leads out of the folder"), "{message}");
        fs::write(folder.join("real.bin"), [0; 16]).unwrap();
        std::os::unix::fs::symlink("real.bin", folder.join("inner.bin")).unwrap();
        open(&folder, &[("location", "inner.bin")]).unwrap();
    }
}

#[test]
fn its_place_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("w.bin"), [0; 20]).unwrap();
    let location = ("location", "w.bin");
    let cases: [(&[(&str, &str)], &str); 5] = [
        (
            &[location, ("offset", "8")],
            "takes 16 bytes from byte 8 of \"w.bin\", which has only 20",
        ),
        (&[location, ("offset", "18446744073709551615")], "has only 20"),
        (&[location, ("length", "12")], "its external length is 12"),
        (&[location, ("offset", "-1")], "external offset \"-1\" is not a number"),
        (&[("offset", "0")], "in no file"),
    ];
    for (entries, expected) in cases {
        let message = open(folder.path(), entries).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
    let message = refusal(outside(&[location]));
    assert!(message.contains("was not read from a folder"), "{message}");
}

//! The verbs that talk to a server: `bench` and `infer`.

use crate::binary::{modelyard, modelyard_with};
use crate::server;

#[test]
fn a_closed_loop_is_measured() {
    let host = server::start(server::double);
    let run = modelyard(&[
        "bench",
        &host,
        "double",
        "-c",
        "4",
        "--duration",
        "300ms",
        "--warmup",
        "50ms",
        "--json",
    ]);
    let report = run.ok().json();
    assert_eq!(report["mode"], "closed");
    assert!(report["answered"].as_u64().unwrap() > 50, "{report:#}");
    assert_eq!(report["answered"], report["statuses"]["200"]);
    assert_eq!(report["failed"], 0);
    let latency = |name: &str| report["latency_us"][name].as_f64().unwrap();
    assert!(latency("min") > 0.0 && latency("p50") <= latency("p99"));
    assert!(latency("p99") <= latency("max"), "{report:#}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_charges_the_wait() {
    let host = server::start(server::double);
    let flags = ["--rate", "500", "--duration", "600ms", "--warmup", "0s", "--json"];
    let run = modelyard(&[&["bench", host.as_str(), "double"], &flags[..]].concat());
    let report = run.ok().json();
    let answered = report["answered"].as_u64().unwrap();
    // 300 are due; five standard deviations of a Poisson count are 87.
    assert!((213..=387).contains(&answered), "{report:#}");
    // One connection and 300 ms an answer: what is due while it is busy waits, and that counts.
    let stalled = modelyard(
        &[&["bench", host.as_str(), "double", "--path", "/stall", "-c", "1"][..], &flags[..]]
            .concat()
            .iter()
            .map(|flag| if *flag == "500" { "20" } else { flag })
            .collect::<Vec<_>>(),
    );
    let report = stalled.ok().json();
    let answered = report["answered"].as_f64().unwrap();
    let max = report["latency_us"]["max"].as_f64().unwrap();
    assert!(answered >= 3.0, "{report:#}");
    assert!(max > 1e5 * answered, "the last waited for all before it: {report:#}");
}

#[test]
fn a_number_of_requests_is_kept_exactly() {
    let host = server::start(server::double);
    let run = modelyard(&["bench", &host, "double", "-n", "100", "--warmup", "0s", "--tfs"]);
    let text = run.ok().stdout;
    assert!(text.contains("answered           100"), "{text}");
    assert!(text.contains("/v1/models/double:predict"), "{text}");
    assert!(text.contains("p99") && text.contains('█'), "{text}");
}

#[test]
fn what_cannot_be_loaded_is_said() {
    let host = server::start(server::double);
    let missing = modelyard(&["bench", &host, "other"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("error: the server answered 404: unknown path"), "{missing:?}");
    let busy = modelyard(&["bench", &host, "double", "--path", "/busy"]);
    assert!(busy.stderr.contains("503: busy"), "{busy:?}");
    let nobody = modelyard(&["bench", "127.0.0.1:1", "double"]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("help: is the server running?"), "{nobody:?}");
    assert_eq!(modelyard(&["bench", "https://h", "double"]).code, 2);
    assert_eq!(modelyard(&["bench", &host, "double", "--rate", "0"]).code, 2);
}

fn infer(host: &str, arguments: &[&str], stdin: &[u8]) -> crate::binary::Run {
    modelyard_with(&[&["infer", host, "double"], arguments].concat(), &[], stdin)
}

#[test]
fn rows_are_sent_and_answered_in_every_format() {
    let host = server::start(server::double);
    let rows = b"a,b\n1,2\n3,4.5\n";
    let table = infer(&host, &[], rows).ok().stdout;
    assert_eq!(table, "row  y[0]  y[1]\n  1  2     4\n  2  6     9\n");
    let csv = infer(&host, &["--format", "csv", "--batch-size", "1"], rows).ok().stdout;
    assert_eq!(csv, "y[0],y[1]\n2,4\n6,9\n");
    let json = infer(&host, &["--format", "json", "--columns", "b,a"], rows).ok().stdout;
    assert_eq!(json, "{\"y\":[4,2]}\n{\"y\":[9,6]}\n");
    let request = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    assert_eq!(infer(&host, &["--format", "csv"], request).ok().stdout, "y[0],y[1]\n2,4\n");
}

#[test]
fn parquet_is_read_with_missing_values() {
    use arrow::array::{Float64Array, Int32Array, RecordBatch};
    use std::sync::Arc;
    let batch = RecordBatch::try_from_iter([
        ("a", Arc::new(Float64Array::from(vec![1.0, 0.1])) as arrow::array::ArrayRef),
        ("b", Arc::new(Int32Array::from(vec![Some(2), Some(3)])) as _),
    ])
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let host = server::start(server::double);
    let run = infer(&host, &["--input", path.to_str().unwrap(), "--format", "csv"], b"");
    assert_eq!(run.ok().stdout, "y[0],y[1]\n2,4\n0.2,6\n");
}

#[test]
fn what_is_wrong_with_rows_is_said_with_the_row() {
    let host = server::start(server::double);
    // The first batch is fine; row 7 of the second is the guilty one.
    let rows = b"a,b\n1,1\n2,2\n3,3\n4,4\n5,5\n6,6\n7,-7\n8,8\n";
    let refused = infer(&host, &["--batch-size", "4"], rows);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("error: row 7: the server answered 400"), "{refused:?}");
    assert!(refused.stdout.contains("4  8     8"), "{refused:?}");
    let cases: [(&[u8], &str); 4] = [
        (b"a,b,c\n1,2,3\n", "takes 2 columns, and there are 3 that fit: a, b, c"),
        (b"a,b\n1,2\n3\n", "CSV"),
        (b"", "the first line has to name the columns"),
        (b"{\"inputs\":[{\"data\":[-1]}]}", "400: input \"x\": negative"),
    ];
    for (input, expected) in cases {
        let run = infer(&host, &[], input);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains(expected), "{run:?}");
    }
    let swapped = modelyard(&["infer", "double", "Cargo.toml"]);
    assert!(swapped.code == 2 && swapped.stderr.contains("--input Cargo.toml"), "{swapped:?}");
}

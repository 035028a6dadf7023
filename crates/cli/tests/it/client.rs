//! The verbs that talk to a server: `bench` and `infer`.

use crate::binary::modelyard;
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

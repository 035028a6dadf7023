//! The Open Inference Protocol's scenarios.

use serde_json::json;

use super::v2_forms::{FORMS, Form, Input, Parameter, Sketch, Values, floats, input};
use super::{Differences, invalid, scenario};
use crate::support;

type Scenario = super::Scenario<Sketch, Form>;

const BYTES: [Form; 3] = [Form::Binary, Form::Raw, Form::Stream];

fn add(inputs: Vec<Input>) -> Sketch {
    Sketch { model: "add", inputs, ..Default::default() }
}

fn a() -> Input {
    floats("a", &[1, 2], &[3.0, 4.0])
}

fn b() -> Input {
    floats("b", &[1, 2], &[1.0, 2.0])
}

/// A good request with parameters.
fn with(parameters: Vec<Parameter>) -> Sketch {
    Sketch { parameters, ..add(vec![a(), b()]) }
}

fn scores(rows: i64, values: &[f64]) -> Sketch {
    let inputs = vec![floats("x", &[rows, 3], values)];
    Sketch { model: "scores", inputs, ..Default::default() }
}

fn classes(count: serde_json::Value) -> Sketch {
    let outputs = vec![("p", vec![("classification", count)])];
    Sketch { outputs, ..scores(1, &[0.0, 1000.0, 0.0]) }
}

const SUM: &str = "version 1, 1 rows; add 1; sum FP32 [1,2] 4.0 6.0";

fn good() -> Vec<Scenario> {
    vec![
        scenario("one row", add(vec![a(), b()]), SUM),
        scenario("inputs in another order", add(vec![b(), a()]), SUM),
        scenario(
            "two rows with an id and a version",
            Sketch {
                version: Some("1"),
                id: Some("q\"7"),
                ..add(vec![
                    floats("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
                    floats("b", &[2, 2], &[0.5, -10.0, 0.0, 0.0]),
                ])
            },
            "version 1, 2 rows; add 1 id q\"7; sum FP32 [2,2] 1.5 -8.0 3.0 4.0",
        ),
        scenario("no rows", scores(0, &[]), "version 1, 0 rows; scores 1; p FP32 [0,3] "),
        scenario(
            "strings",
            Sketch {
                model: "echo",
                inputs: vec![input("x", "BYTES", &[3], Values::Texts(vec!["é\n", "", "b"]))],
                ..Default::default()
            },
            r#"version 1, 3 rows; echo 1; y BYTES [3] "é\n" "" "b""#,
        ),
        scenario(
            "integers beyond FP64",
            Sketch {
                model: "number",
                inputs: vec![input(
                    "x",
                    "INT64",
                    &[2],
                    Values::Whole(vec![9007199254740993, i64::MIN]),
                )],
                ..Default::default()
            },
            "version 1, 2 rows; number 1; y INT64 [2] 9007199254740993 -9223372036854775808",
        ),
        scenario(
            "outputs in the order asked for",
            Sketch {
                model: "both",
                inputs: vec![floats("x", &[1, 1], &[-1.5])],
                outputs: vec![("z", vec![]), ("y", vec![])],
                ..Default::default()
            },
            "version 1, 1 rows; both 1; z FP32 [1,1] 1.5; y FP32 [1,1] -1.5",
        ),
        scenario(
            "the two best classes",
            classes(json!(2)),
            r#"version 1, 1 rows; scores 1; p BYTES [1,2] "1.000000:1" "0.000000:0""#,
        ),
        scenario(
            "more classes than there are",
            classes(json!(u64::MAX)),
            r#"version 1, 1 rows; scores 1; p BYTES [1,3] "1.000000:1" "0.000000:0" "0.000000:2""#,
        ),
        scenario(
            "no classes",
            classes(json!(0)),
            "version 1, 1 rows; scores 1; p FP32 [1,3] 0.0 1.0 0.0",
        ),
        scenario("a priority", with(vec![("priority", json!(1))]), SUM),
        scenario("a priority beyond all", with(vec![("priority", json!(u64::MAX))]), SUM),
        scenario("no timeout", with(vec![("timeout", json!(0))]), SUM),
        scenario("a timeout beyond the clock", with(vec![("timeout", json!(u64::MAX))]), SUM),
        scenario("time enough", Sketch { timeout: Some(60_000), ..add(vec![a(), b()]) }, SUM),
        scenario("a parameter of the caller's own", with(vec![("mine", json!("x"))]), SUM),
        scenario("no sequence", with(vec![("sequence_id", json!(0))]), SUM),
        scenario("no sequence in words", with(vec![("sequence_id", json!(""))]), SUM),
        scenario(
            "NaN",
            Sketch {
                model: "both",
                inputs: vec![floats("x", &[1, 1], &[f64::NAN])],
                outputs: vec![("y", vec![])],
                ..Default::default()
            },
            "version 1, 1 rows; both 1; y FP32 [1,1] NaN",
        )
        .but(
            &[Form::Json],
            "INVALID_ARGUMENT: input \"x\": data[0]: expected FP32, got NaN, which is not JSON; \
             send it as binary data",
        ),
    ]
}

/// Inputs that do not fit together or the model.
fn wrong_inputs() -> Vec<Scenario> {
    let takes = "the model takes \"a\" FP32 [-1, 2], \"b\" FP32 [-1, 2]";
    let whole = |name: &str, values| input(name, "INT32", &[1, 2], Values::Whole(values));
    vec![
        scenario(
            "string for float",
            add(vec![input("a", "FP32", &[1, 2], Values::Texts(vec!["x", "y"])), b()]),
            invalid("input \"a\": shape [1, 2] FP32 needs 8 bytes, got 10"),
        )
        .but(&[Form::Json], invalid("input \"a\": data[0]: expected FP32, got the string \"x\""))
        .but(
            &[Form::Typed],
            invalid("input \"a\": FP32 elements belong in fp32_contents, not bytes_contents"),
        ),
        scenario(
            "a tensor of strings for one of floats",
            add(vec![input("a", "BYTES", &[1, 2], Values::Texts(vec!["x", "y"])), b()]),
            invalid("input \"a\": expected shape [-1, 2] FP32, got [1, 2] BYTES"),
        ),
        scenario(
            "wrong datatype",
            add(vec![whole("a", vec![1, 2]), b()]),
            invalid("input \"a\": expected shape [-1, 2] FP32, got [1, 2] INT32"),
        ),
        scenario(
            "unknown datatype",
            add(vec![input("a", "FLOAT", &[1, 2], Values::Floats(vec![1.0, 2.0])), b()]),
            invalid(
                "input \"a\": \"FLOAT\" is not a datatype; there are BOOL, UINT8, UINT16, UINT32, \
                 UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES",
            ),
        ),
        scenario(
            "shape is not the data's length",
            add(vec![floats("a", &[1, 2], &[1.0, 2.0, 3.0]), b()]),
            invalid("input \"a\": shape [1, 2] needs 2 elements, got 3"),
        )
        .but(&BYTES, invalid("input \"a\": shape [1, 2] FP32 needs 8 bytes, got 12")),
        scenario(
            "one column too many",
            add(vec![floats("a", &[1, 3], &[1.0, 2.0, 3.0]), b()]),
            invalid("input \"a\": expected shape [-1, 2] FP32, got [1, 3] FP32"),
        ),
        scenario(
            "29 of 30 columns",
            Sketch {
                model: "wide",
                inputs: vec![floats("x", &[1, 29], &[0.5; 29])],
                ..Default::default()
            },
            invalid("input \"x\": expected shape [-1, 30] FP32, got [1, 29] FP32"),
        ),
        scenario(
            "another rank",
            add(vec![floats("a", &[2], &[1.0, 2.0]), b()]),
            invalid("input \"a\": expected shape [-1, 2] FP32, got [2] FP32"),
        ),
        scenario(
            "different rows",
            add(vec![floats("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0]), b()]),
            invalid("input \"b\": dimension \"N\" is 1, but 2 in input \"a\""),
        ),
        scenario(
            "missing input",
            add(vec![a()]),
            invalid(&format!("missing input \"b\"; {takes}")),
        ),
        scenario(
            "no inputs",
            add(vec![]),
            invalid(&format!("missing inputs \"a\", \"b\"; {takes}")),
        ),
        scenario(
            "extra input",
            add(vec![a(), b(), floats("c", &[1, 2], &[1.0, 2.0])]),
            invalid(&format!("unknown input \"c\"; {takes}")),
        ),
        scenario(
            "misnamed input",
            add(vec![floats("A", &[1, 2], &[1.0, 2.0]), b()]),
            invalid(&format!("unknown input \"A\"; {takes}")),
        ),
        scenario(
            "input without a name",
            add(vec![floats("", &[1, 2], &[1.0, 2.0]), b()]),
            invalid(&format!("unknown input \"\"; {takes}")),
        ),
        scenario(
            "a name as long as a book",
            add(vec![floats(&"x".repeat(100_000), &[1, 2], &[1.0, 2.0]), b()]),
            invalid(&format!("unknown input \"{}\"; {takes}", "x".repeat(100))),
        ),
        scenario("input given twice", add(vec![a(), a()]), invalid("input \"a\" was given twice")),
        scenario(
            "input without data",
            add(vec![input("a", "FP32", &[1, 2], Values::Absent), b()]),
            invalid("input \"a\": it has neither \"data\" nor the parameter \"binary_data_size\""),
        )
        .but(&[Form::Typed], invalid("input \"a\": shape [1, 2] needs 2 elements, got 0"))
        .but(
            &[Form::Raw, Form::Stream],
            invalid("input \"a\": shape [1, 2] FP32 needs 8 bytes, got 0"),
        ),
        scenario(
            "out of range",
            add(vec![floats("a", &[1, 2], &[1e39, 2.0]), b()]),
            // The other forms cannot say it: their sender has made it infinite.
            "version 1, 1 rows; add 1; sum FP32 [1,2] inf 4.0",
        )
        .but(
            &[Form::Json],
            invalid(
                "input \"a\": data[0]: expected a number in the range of FP32, got the number 1e39",
            ),
        ),
    ]
}

/// Shapes that lie.
fn wrong_shapes() -> Vec<Scenario> {
    let of = |shape: &[i64]| add(vec![floats("a", shape, &[1.0, 2.0]), b()]);
    let beyond = "has more elements than memory has addresses";
    vec![
        scenario(
            "negative dimension",
            of(&[-1, 2]),
            invalid("input \"a\": shape: expected a dimension that is 0 or more, got the number -1"),
        ),
        scenario(
            "a billion elements",
            of(&[1_000_000_000, 2]),
            invalid("input \"a\": shape [1000000000, 2] needs 2000000000 elements, got 2"),
        )
        .but(
            &BYTES,
            invalid("input \"a\": shape [1000000000, 2] FP32 needs 8000000000 bytes, got 8"),
        ),
        scenario(
            "elements beyond memory",
            of(&[i64::MAX, i64::MAX]),
            invalid(&format!("input \"a\": shape [{0}, {0}] {beyond}", i64::MAX)),
        ),
        scenario(
            "a product that wraps to the right number",
            of(&[1 << 32, 1 << 32, 2]),
            invalid(&format!("input \"a\": shape [4294967296, 4294967296, 2] {beyond}")),
        ),
        scenario(
            "bytes beyond memory",
            of(&[1 << 61, 2]),
            invalid("input \"a\": shape [2305843009213693952, 2] needs 4611686018427387904 elements, got 2"),
        )
        .but(
            &BYTES,
            invalid(
                "input \"a\": shape [2305843009213693952, 2] FP32 needs 18446744073709551616 bytes, got 8",
            ),
        ),
        scenario(
            "nothing, very often",
            of(&[0, i64::MAX]),
            invalid("input \"a\": shape [0, 9223372036854775807] needs 0 elements, got 2"),
        )
        .but(
            &BYTES,
            invalid("input \"a\": shape [0, 9223372036854775807] FP32 needs 0 bytes, got 8"),
        ),
        scenario(
            "more dimensions than any tensor",
            of(&[1; 17]),
            invalid("input \"a\": shape: more than 16 dimensions"),
        ),
        scenario(
            "a scalar",
            of(&[]),
            invalid("input \"a\": shape [] needs 1 elements, got 2"),
        )
        .but(&BYTES, invalid("input \"a\": shape [] FP32 needs 4 bytes, got 8")),
    ]
}

/// Models, outputs and parameters that there are not.
fn wrong_names_and_parameters() -> Vec<Scenario> {
    let whole = |name: &str, got: &str| {
        invalid(&format!("parameter \"{name}\": expected a whole number, 0 or more, got {got}"))
    };
    let shared = |what: &str| {
        format!("UNIMPLEMENTED: {what}: shared memory is not supported; send the tensor itself")
    };
    let sequences = "UNIMPLEMENTED: parameter \"sequence_id\": sequences are not supported";
    let region = || vec![("shared_memory_region", json!("r"))];
    let wanted = |outputs| Sketch { outputs, ..add(vec![a(), b()]) };
    vec![
        scenario(
            "unknown model",
            Sketch { model: "nothing", ..add(vec![a(), b()]) },
            "NOT_FOUND: Request for unknown model: 'nothing' is not found",
        ),
        scenario(
            "unknown version",
            Sketch { version: Some("9"), ..add(vec![a(), b()]) },
            "NOT_FOUND: Request for unknown model: 'add' version 9 is not found",
        ),
        scenario(
            "a version in words",
            Sketch { version: Some("v10"), ..add(vec![a(), b()]) },
            "NOT_FOUND: Request for unknown model: 'add' version v10 is not found",
        ),
        scenario(
            "unknown output",
            wanted(vec![("q", vec![])]),
            invalid("unknown output \"q\"; the model gives \"sum\" FP32 [-1, 2]"),
        ),
        scenario(
            "output asked for twice",
            wanted(vec![("sum", vec![]), ("sum", vec![])]),
            invalid("output \"sum\" was asked for twice"),
        ),
        scenario(
            "input in shared memory",
            add(vec![
                Input { parameters: region(), ..input("a", "FP32", &[1, 2], Values::Absent) },
                b(),
            ]),
            shared("input \"a\""),
        ),
        scenario(
            "output in shared memory",
            wanted(vec![("sum", region())]),
            shared("output \"sum\""),
        ),
        scenario("a sequence", with(vec![("sequence_id", json!(7))]), sequences),
        scenario("a sequence in words", with(vec![("sequence_id", json!("s"))]), sequences),
        scenario(
            "a negative priority",
            with(vec![("priority", json!(-1))]),
            whole("priority", "the number -1"),
        ),
        scenario(
            "a priority in words",
            with(vec![("priority", json!("high"))]),
            whole("priority", "the string \"high\""),
        ),
        scenario(
            "half a timeout",
            with(vec![("timeout", json!(0.5))]),
            whole("timeout", "the number 0.5"),
        ),
        scenario(
            "a timeout that is a truth",
            with(vec![("timeout", json!(true))]),
            whole("timeout", "true"),
        ),
        scenario(
            "less than no classes",
            classes(json!(-2)),
            whole("classification", "the number -2").replacen(
                "parameter",
                "output \"p\": parameter",
                1,
            ),
        ),
        scenario(
            "time that is up",
            Sketch { timeout: Some(0), ..add(vec![a(), b()]) },
            "DEADLINE_EXCEEDED: the request's time is already up",
        ),
    ]
}

/// Who gets which of three versions: the first has all the traffic, the second is pinned to a key,
/// and the third is a shadow.
fn callers() -> Vec<Scenario> {
    let headers = |headers: &[(&'static str, &str)]| Sketch {
        headers: headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        ..add(vec![a(), b()])
    };
    let sum = |version| format!("version {version}, 1 rows; add {version}; sum FP32 [1,2] 4.0 6.0");
    let wrong = |name, got| {
        invalid(&format!("{name}: expected 1 to 256 printable ASCII characters, got {got}"))
    };
    let (key, version) = ("modelyard-key", "modelyard-version");
    vec![
        scenario("nobody", headers(&[]), sum(1)),
        scenario("a key", headers(&[(key, "user 7~")]), sum(1)),
        scenario("the longest key", headers(&[(key, &"k".repeat(256))]), sum(1)),
        scenario("a pinned key", headers(&[(key, "tester")]), sum(2)),
        scenario("a version", headers(&[(version, "2")]), sum(2)),
        scenario("a shadow's version", headers(&[(version, "3")]), sum(3)),
        scenario("a version and a key", headers(&[(version, "1"), (key, "tester")]), sum(1)),
        scenario(
            "the same version twice",
            Sketch { version: Some("2"), ..headers(&[(version, "2")]) },
            sum(2),
        ),
        scenario(
            "two versions",
            Sketch { version: Some("1"), ..headers(&[(version, "2")]) },
            invalid(
                "modelyard-version: the request names version \"1\", but this says \"2\"; leave one \
                 of them away",
            ),
        ),
        scenario(
            "a version that is not there",
            headers(&[(version, "9")]),
            "NOT_FOUND: Request for unknown model: 'add' version 9 is not found",
        ),
        scenario("a long key", headers(&[(key, &"k".repeat(257))]), wrong(key, "257")),
        scenario("a long version", headers(&[(version, &"1".repeat(300))]), wrong(version, "300")),
        scenario("an empty key", headers(&[(key, "")]), wrong(key, "none")),
        scenario("two keys", headers(&[(key, "a"), (key, "b")]), wrong(key, "several values")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_grpc_agree_on_which_version_answers() {
    let server = support::start_versions().await;
    let mut grpc = server.grpc().await;
    let mut differences = Differences::default();
    for scenario in callers() {
        for form in FORMS {
            let seen = scenario.sketch.send(form, &server, &mut grpc).await;
            differences.compare(scenario.name, form, &seen, scenario.expected(&form));
        }
    }
    differences.none();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_grpc_agree_in_every_form() {
    let server = support::start().await;
    let mut grpc = server.grpc().await;
    let mut differences = Differences::default();
    let mut table = good();
    table.extend(wrong_inputs());
    table.extend(wrong_shapes());
    table.extend(wrong_names_and_parameters());
    for scenario in table {
        for form in FORMS {
            let seen = scenario.sketch.send(form, &server, &mut grpc).await;
            differences.compare(scenario.name, form, &seen, scenario.expected(&form));
        }
    }
    differences.none();
}

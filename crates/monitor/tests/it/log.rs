//! The log of predictions, written and read back.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use model::{
    DataType, Dimension, ErrorCode, Observation, Outcome, Shadow, Signature, Tensor, TensorSpec,
};
use monitor::log::columns::{Kept, Rows};
use monitor::log::files::{Keep, Table};
use monitor::log::performance::{Performance, Question, performance};
use monitor::log::read::{Query, newest};
use monitor::log::scores::{Classified, Estimated, classification, regression};
use monitor::log::{
    Known, Label, Log, ModelRules, Options, Pattern, Rules, Salt, Store, Treatment, Watcher,
};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    let dim = |extent: &i64| usize::try_from(*extent).map_or(Dimension::Any, Dimension::Fixed);
    TensorSpec::new(name, datatype, dims.iter().map(dim).collect())
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Arc<Signature> {
    Arc::new(Signature { inputs, outputs, batched: true })
}

/// A model of an age, a name and three features that answers a probability.
fn credit() -> Arc<Signature> {
    signature(
        vec![
            spec("age", DataType::Fp32, &[-1, 1]),
            spec("name", DataType::Bytes, &[-1]),
            spec("x", DataType::Fp64, &[-1, 3]),
        ],
        vec![spec("score", DataType::Fp32, &[-1])],
    )
}

fn credit_signature() -> Arc<Signature> {
    static CREDIT: LazyLock<Arc<Signature>> = LazyLock::new(credit);
    CREDIT.clone()
}

fn texts(texts: &[&str]) -> Tensor {
    let strings: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    Tensor::new(vec![texts.len()], strings).unwrap()
}

fn prediction(signature: &Arc<Signature>, id: &str, inputs: Vec<Tensor>) -> Observation {
    let rows = inputs[0].shape()[0];
    let scores = (0..rows).map(|row| row as f32 / 2.0).collect::<Vec<_>>();
    Observation {
        model: "credit".into(),
        version: "4".into(),
        signature: signature.clone(),
        id: Some(id.into()),
        key: None,
        at: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
        queue: Duration::from_millis(1),
        compute: Duration::from_micros(2500),
        batch_size: rows,
        outcome: Outcome::Answered,
        inputs: inputs.into_iter().map(Some).collect(),
        outputs: Arc::new([Tensor::new(vec![rows], scores).unwrap()]),
        shadow: None,
    }
}

fn two_rows(id: &str) -> Observation {
    let age = Tensor::new(vec![2, 1], vec![40.0f32, f32::NAN]).unwrap();
    let x = Tensor::new(vec![2, 3], vec![1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    prediction(&credit_signature(), id, vec![age, texts(&["ada", "bob"]), x])
}

fn table(rules: &Rules, observations: &[Observation]) -> RecordBatch {
    let first = &observations[0];
    let mut rows = Rows::new(&first.model, first.signature.clone(), rules, 1000);
    for observation in observations {
        rows.add(&Kept { observation: observation.clone(), weight: 1.0 });
    }
    rows.finish().unwrap()
}

fn strings(table: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = table.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

#[test]
fn a_row_of_a_batch_is_a_row_of_the_log() {
    let mut failed = two_rows("b");
    failed.outcome = Outcome::Failed(ErrorCode::Internal);
    failed.outputs = Arc::new([]);
    let mut shadow = two_rows("a");
    shadow.shadow = Some(Shadow { version: "3".into(), outputs: Arc::new([]) });
    let table = table(&Rules::default(), &[two_rows("a"), failed, shadow]);
    assert_eq!(table.num_rows(), 6);
    let ids: Vec<_> = strings(&table, "request_id").into_iter().flatten().collect();
    assert_eq!(ids, ["a", "a", "b", "b", "a", "a"]);
    let column = |name| table.column_by_name(name).unwrap();
    assert_eq!(column("row").as_primitive::<Int32Type>().values()[..], [0, 1, 0, 1, 0, 1]);
    let times = column("time").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0), 1_700_000_000_123_456);
    assert_eq!(column("queue_seconds").as_primitive::<Float64Type>().value(0), 0.001);
    assert_eq!(column("compute_seconds").as_primitive::<Float64Type>().value(0), 0.0025);
    let codes: Vec<_> = strings(&table, "code").into_iter().flatten().collect();
    assert_eq!(codes, ["OK", "OK", "INTERNAL", "INTERNAL", "OK", "OK"]);
    let routes: Vec<_> = strings(&table, "route").into_iter().flatten().collect();
    assert_eq!(routes[3..5], ["answered", "shadow"]);
    let by: Vec<_> = strings(&table, "answered_by").into_iter().flatten().collect();
    assert_eq!(by, ["4", "4", "4", "4", "3", "3"]);
    let ages = column("input_age").as_primitive::<Float32Type>();
    assert!(ages.value(0) == 40.0 && ages.value(1).is_nan() && ages.null_count() == 0);
    assert_eq!(strings(&table, "input_name")[1].as_deref(), Some("bob"));
    let lists = column("input_x").as_list::<i32>();
    assert_eq!(lists.value(1).as_primitive::<Float64Type>().values()[..], [4.0, 5.0, 6.0]);
    let scores = column("output_score").as_primitive::<Float32Type>();
    assert_eq!(scores.iter().collect::<Vec<_>>()[1..4], [Some(0.5), None, None]);
}

#[test]
fn every_type_has_its_column() {
    let all = DataType::ALL;
    let inputs = all.iter().map(|kind| spec(kind.as_str(), *kind, &[-1])).collect();
    let signature = signature(inputs, vec![spec("score", DataType::Fp32, &[-1])]);
    let tensors = all.iter().map(|kind| {
        let data = match kind {
            DataType::Bytes => return texts(&["7"]),
            DataType::Bool => return Tensor::new(vec![1], vec![true]).unwrap(),
            DataType::Uint8 => vec![7u8].into(),
            DataType::Uint16 => vec![7u16].into(),
            DataType::Uint32 => vec![7u32].into(),
            DataType::Uint64 => vec![u64::MAX].into(),
            DataType::Int8 => vec![-7i8].into(),
            DataType::Int16 => vec![-7i16].into(),
            DataType::Int32 => vec![-7i32].into(),
            DataType::Int64 => vec![i64::MIN].into(),
            DataType::Fp16 => vec![model::f16::from_f32(0.1)].into(),
            DataType::Bf16 => vec![model::bf16::from_f32(0.1)].into(),
            DataType::Fp32 => vec![0.1f32].into(),
            DataType::Fp64 => model::Data::from(vec![0.1f64]),
        };
        Tensor::new(vec![1], data).unwrap()
    });
    let one = prediction(&signature, "a", tensors.collect());
    let table = table(&Rules::default(), &[one]);
    let shown = |name: &str| {
        let column = table.column_by_name(&format!("input_{name}")).unwrap();
        let format = arrow::util::display::FormatOptions::default();
        let shown = arrow::util::display::ArrayFormatter::try_new(column, &format).unwrap();
        format!("{} {}", column.data_type(), shown.value(0))
    };
    assert_eq!(shown("BOOL"), "Boolean true");
    assert_eq!(shown("UINT64"), format!("UInt64 {}", u64::MAX));
    assert_eq!(shown("INT8"), "Int8 -7");
    assert_eq!(shown("INT64"), format!("Int64 {}", i64::MIN));
    assert_eq!(shown("FP16"), "Float32 0.099975586");
    assert_eq!(shown("BF16"), "Float32 0.100097656");
    assert_eq!(shown("FP32"), "Float32 0.1");
    assert_eq!(shown("BYTES"), "Utf8 7");
}

#[test]
fn what_does_not_fit_a_column_is_no_value_and_moves_no_other() {
    let signature = signature(
        vec![spec("image", DataType::Uint8, &[-1, -1, -1]), spec("y", DataType::Int64, &[-1])],
        vec![spec("score", DataType::Fp32, &[-1])],
    );
    let rows = |rows: usize, width: usize| {
        let image = Tensor::new(vec![rows, width, 2], vec![1u8; rows * width * 2]).unwrap();
        let y = Tensor::new(vec![rows], (0..rows as i64).collect::<Vec<_>>()).unwrap();
        prediction(&signature, "a", vec![image, y])
    };
    let mut without = rows(1, 1);
    without.inputs = Arc::new([None, None]);
    let mut wrong = rows(2, 2);
    wrong.inputs = Arc::new([Some(texts(&["x", "y"])), wrong.inputs[1].clone()]);
    let mut all = Rows::new("m", signature.clone(), &Rules::default(), 8);
    for observation in [rows(1, 3), rows(2, 5), without, wrong, rows(1, 0)] {
        all.add(&Kept { observation, weight: 1.0 });
    }
    // Two rows of ten elements each are wider than eight.
    assert_eq!(all.left_out(), 2);
    let table = all.finish().unwrap();
    let lengths = |name| {
        let lists = table.column_by_name(name).unwrap().as_list::<i32>().iter();
        lists.map(|list| list.map(|list| list.len())).collect::<Vec<_>>()
    };
    let expected = [Some(6), None, None, None, None, None, Some(0)];
    assert_eq!(lengths("input_image"), expected);
    assert_eq!(lengths("input_image_shape")[0], Some(2));
    let ys = table.column_by_name("input_y").unwrap().as_primitive::<Int64Type>();
    let expected = [Some(0), Some(0), Some(1), None, Some(0), Some(1), Some(0)];
    assert_eq!(ys.iter().collect::<Vec<_>>(), expected);
}

fn with_columns(columns: &[(&str, Treatment)], salt: Option<&str>) -> Rules {
    let columns = columns.iter().map(|(name, how)| (Pattern::new(*name), *how)).collect();
    Rules {
        default: ModelRules { columns, ..ModelRules::default() },
        salt: salt.map(|salt| Salt::new(salt.as_bytes())),
        ..Rules::default()
    }
}

#[test]
fn columns_are_masked_hashed_or_left_out() {
    let rules = with_columns(
        &[
            ("input_name", Treatment::Hash),
            ("input_x", Treatment::Hash),
            ("request_id", Treatment::Hash),
            ("output_*", Treatment::LeaveOut),
            ("input_*", Treatment::Mask),
        ],
        Some("key"),
    );
    let table = table(&rules, &[two_rows("a")]);
    assert!(table.column_by_name("output_score").is_none());
    assert_eq!(strings(&table, "input_age"), [Some("***".into()), Some("***".into())]);
    // python3 -c "import hmac; print(hmac.new(b'key', b'ada', 'sha256').hexdigest())"
    let ada = "708a727d2475357eaacc4f88c80d7eec3218ce0cabcf2694f6fecd080545cc6f";
    let salt = Salt::new(b"key");
    assert_eq!(strings(&table, "input_name")[0].as_deref(), Some(ada));
    assert_eq!(strings(&table, "request_id")[1], Some(salt.hash(b"a")));
    let list = table.column_by_name("input_x").unwrap().as_list::<i32>().value(0);
    assert_eq!(list.as_string::<i32>().value(0), salt.hash(b"1"));
    assert_eq!(format!("{:?} {rules:?}", salt).matches("key").count(), 0);
    // Nothing is hashed without a key, and so nothing of it is written.
    let rules = with_columns(&[("input_name", Treatment::Hash)], None);
    assert!(self::table(&rules, &[two_rows("a")]).column_by_name("input_name").is_none());
}

#[test]
fn a_sample_is_drawn_by_id_and_keeps_what_failed_or_was_slow() {
    let own = ModelRules { sample: 0.25, slow: Duration::from_millis(10), ..Default::default() };
    let off = ModelRules { log: false, ..Default::default() };
    let models = [("credit".to_owned(), own), ("off".to_owned(), off)].into();
    let rules = Rules { models, ..Rules::default() };
    let kept: Vec<u32> = (0..4000)
        .filter(|number| rules.weight(&two_rows(&number.to_string())) == Some(4.0))
        .collect();
    assert!((850..1150).contains(&kept.len()), "{}", kept.len());
    let dropped = (0..).find(|number| !kept.contains(number)).unwrap();
    let mut one = two_rows(&dropped.to_string());
    assert_eq!(rules.weight(&one), None);
    one.compute = Duration::from_millis(11);
    assert_eq!(rules.weight(&one), Some(1.0));
    one.compute = Duration::ZERO;
    one.outcome = Outcome::Failed(ErrorCode::Internal);
    assert_eq!(rules.weight(&one), Some(1.0));
    one.model = "off".into();
    assert_eq!(rules.weight(&one), None);
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> Store {
        let store = LocalFileSystem::new_with_prefix(self.0.path()).unwrap();
        Store::new(Arc::new(store), Path::default(), Some(self.0.path().to_owned()))
    }

    /// All rows of a table.
    fn read(&self, table: Table) -> RecordBatch {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = self.store();
        runtime.block_on(async {
            let mut batches = Vec::new();
            for file in store.files(table, Some("credit")).await.unwrap() {
                let bytes = store.read(&file).await.unwrap().unwrap();
                let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
                batches.extend(reader.build().unwrap().map(Result::unwrap));
            }
            arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
        })
    }

    /// Rows of every file of the log, each of which has to be whole.
    fn rows(&self) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = self.store();
        runtime.block_on(async {
            let mut rows = 0;
            for file in store.files(Table::Predictions, Some("credit")).await.unwrap() {
                let bytes = store.read(&file).await.unwrap().unwrap();
                let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
                rows += reader.build().unwrap().map(|b| b.unwrap().num_rows()).sum::<usize>();
            }
            rows
        })
    }
}

fn show(watcher: &Watcher, count: usize) {
    for number in 0..count {
        watcher.observe(&two_rows(&number.to_string()));
    }
}

fn nothing() {}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn everything_is_there_after_the_end() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    show(&log.watcher(), 1000);
    let counts = log.finish(PATIENCE);
    assert_eq!((counts.seen, counts.rows, counts.lost_rows, counts.dropped), (1000, 2000, 0, 0));
    assert_eq!(folder.rows(), 2000);
    // Nothing is left beside the files.
    let staging = std::fs::read_dir(folder.0.path().join("_staging")).unwrap();
    assert_eq!(staging.count(), 0);
}

#[test]
fn what_is_old_enough_is_in_a_file_before_the_end() {
    let folder = Folder::new();
    let options = Options { flush: Duration::from_millis(200), ..Options::default() };
    let log = Log::start(folder.store(), options, nothing).unwrap();
    show(&log.watcher(), 10);
    let end = Instant::now() + PATIENCE;
    while log.counts().rows < 20 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((log.counts().rows, folder.rows()), (20, 20));
}

#[test]
fn too_much_is_dropped_and_counted() {
    let options = Options { waiting: 0, ..Options::default() };
    let store = Store::new(Arc::new(InMemory::new()), Path::default(), None);
    let log = Log::start(store, options, nothing).unwrap();
    show(&log.watcher(), 10);
    let counts = log.finish(PATIENCE);
    assert_eq!((counts.seen, counts.dropped, counts.rows), (10, 10, 0));
}

#[test]
fn a_store_that_takes_nothing_for_a_while_gets_everything_later() {
    let folder = Folder::new();
    // Nothing can be made in what is not a folder.
    let blocked = folder.0.path().join("predictions");
    std::fs::write(&blocked, "").unwrap();
    let options = Options { flush: Duration::from_millis(100), ..Options::default() };
    let log = Log::start(folder.store(), options, nothing).unwrap();
    show(&log.watcher(), 10);
    let end = Instant::now() + PATIENCE;
    while log.counts().failures < 2 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(log.counts().failures >= 2 && log.counts().backlog_bytes > 0);
    std::fs::remove_file(&blocked).unwrap();
    let counts = log.finish(PATIENCE);
    assert_eq!((counts.rows, counts.lost_rows, counts.backlog_bytes), (20, 0, 0));
    assert_eq!(folder.rows(), 20);
}

#[test]
fn a_dead_store_costs_bounded_memory_and_its_losses_are_counted() {
    let folder = Folder::new();
    std::fs::write(folder.0.path().join("predictions"), "").unwrap();
    let options = Options {
        flush: Duration::from_millis(50),
        backlog_bytes: 1,
        part_bytes: 10_000,
        ..Options::default()
    };
    let log = Log::start(folder.store(), options, nothing).unwrap();
    show(&log.watcher(), 2000);
    let counts = log.finish(Duration::from_secs(1));
    assert_eq!((counts.rows, counts.lost_rows), (0, 4000));
}

#[test]
fn leftovers_of_writers_that_are_gone_are_removed_and_of_others_not() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    let staging = folder.0.path().join("_staging");
    std::fs::create_dir_all(staging.join("gone")).unwrap();
    std::fs::write(staging.join("gone/lock"), "").unwrap();
    std::fs::write(staging.join("gone/half.parquet#1"), "PAR1").unwrap();
    let other = Log::start(folder.store(), Options::default(), nothing).unwrap();
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 2, "of the two that live");
    other.finish(PATIENCE);
    show(&log.watcher(), 1);
    assert_eq!(log.finish(PATIENCE).rows, 2);
}

#[test]
fn files_that_are_too_old_or_too_many_are_removed() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    // These predictions were made in November 2023.
    show(&log.watcher(), 10);
    log.finish(PATIENCE);
    assert_eq!(folder.rows(), 20);
    let age = Some(Duration::from_secs(3600));
    let keep = Keep { age, bytes: None };
    let options = Options { keep, ..Options::default() };
    let log = Log::start(folder.store(), options, nothing).unwrap();
    let mut now = two_rows("now");
    now.at = SystemTime::now();
    log.watcher().observe(&now);
    let counts = log.finish(PATIENCE);
    assert_eq!((counts.expired_files, folder.rows()), (1, 2));
}

#[test]
fn labels_are_rows_of_their_own_table() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    let label = |id: &str, known| Label {
        model: "credit".into(),
        request_id: id.into(),
        feedback_id: format!("f-{id}"),
        known,
        right: Some(true),
        metrics: [("cost".to_owned(), 2.5)].into(),
        version: None,
        received: SystemTime::now(),
    };
    let labels = log.labels();
    assert!(labels.take(vec![
        label("a", Some(Known::Number(1.0))),
        label("b", Some(Known::Name("good".into()))),
        label("c", None),
    ]));
    let counts = log.finish(PATIENCE);
    assert_eq!((counts.labels, counts.rows), (3, 3));
    let table = folder.read(Table::Labels);
    assert_eq!(strings(&table, "label"), [Some("1".into()), Some("good".into()), None]);
    let numbers = table.column_by_name("label_number").unwrap().as_primitive::<Float64Type>();
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(1.0), None, None]);
    assert_eq!(strings(&table, "metrics")[0].as_deref(), Some("{\"cost\":2.5}"));
}

#[test]
fn labels_beyond_what_may_wait_are_refused() {
    let options = Options { waiting: 1, ..Options::default() };
    let store = Store::new(Arc::new(InMemory::new()), Path::default(), None);
    let log = Log::start(store, options, nothing).unwrap();
    let label = Label {
        model: "m".into(),
        request_id: "a".into(),
        feedback_id: "a".into(),
        known: None,
        right: None,
        metrics: Default::default(),
        version: None,
        received: SystemTime::now(),
    };
    assert!(!log.labels().take(vec![label.clone(), label]));
    assert_eq!(log.finish(PATIENCE).dropped_labels, 2);
}

/// Predictions of `credit` with ids 0, 1, …, of one row each, with this score.
fn scored(scores: &[f32]) -> impl Iterator<Item = Observation> {
    scores.iter().enumerate().map(|(number, score)| {
        let x = Tensor::new(vec![1, 3], vec![1.0f64, 2.0, 3.0]).unwrap();
        let age = Tensor::new(vec![1, 1], vec![number as f32]).unwrap();
        let name = texts(&[if number % 2 == 0 { "even" } else { "odd" }]);
        let mut one = prediction(&credit_signature(), &number.to_string(), vec![age, name, x]);
        one.at = SystemTime::now();
        one.outputs = Arc::new([Tensor::new(vec![1], vec![*score]).unwrap()]);
        one
    })
}

fn said(id: &str, feedback: &str, number: f64) -> Label {
    Label {
        model: "credit".into(),
        request_id: id.into(),
        feedback_id: feedback.into(),
        known: Some(Known::Number(number)),
        right: None,
        metrics: Default::default(),
        version: None,
        received: SystemTime::now(),
    }
}

fn performance_of(folder: &Folder, question: &Question) -> Result<Performance, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(performance(&folder.store(), question));
    found.map_err(|error| error.to_string())
}

#[test]
fn labels_join_their_predictions_and_what_does_not_is_counted() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    let watcher = log.watcher();
    scored(&[0.9, 0.8, 0.3, 0.4, 0.6]).for_each(|one| watcher.observe(&one));
    let mut several = two_rows("several");
    several.at = SystemTime::now();
    watcher.observe(&several);
    let mut shadow = scored(&[0.1]).next().unwrap();
    shadow.shadow = Some(Shadow { version: "3".into(), outputs: Arc::new([]) });
    watcher.observe(&shadow);
    let labels = log.labels();
    // An unknown request, one said twice, one corrected later, and one of several rows.
    labels.take(vec![
        said("nobody", "f0", 1.0),
        said("0", "f1", 1.0),
        said("0", "f1", 1.0),
        said("1", "f2", 1.0),
        said("2", "f3", 0.0),
        said("3", "f4", 0.0),
        said("several", "f6", 1.0),
    ]);
    std::thread::sleep(Duration::from_millis(2));
    labels.take(vec![said("3", "f5", 1.0)]);
    log.finish(PATIENCE);
    let question = Question { query: Query::of("credit"), ..Question::default() };
    let found = performance_of(&folder, &question).unwrap();
    let joined = found.joined;
    assert_eq!((joined.predictions, joined.labels, joined.joined), (6, 6, 4));
    assert_eq!((joined.unknown, joined.repeated, joined.replaced), (1, 1, 1));
    assert_eq!((joined.several_rows, joined.unfit), (1, 0));
    let scores = found.all.unwrap().classification.unwrap();
    // 0.9, 0.8 and 0.3 are on the right side, 0.4 is not.
    assert_eq!((scores.accuracy, scores.roc_auc), (0.75, Some(1.0)));
    assert_eq!(scores.confusion, [[1.0, 0.0], [1.0, 2.0]]);

    let by = Question { by: Some("input_name".into()), ..question.clone() };
    let found = performance_of(&folder, &by).unwrap();
    let slices: Vec<_> = found.slices.iter().map(|(name, s)| (name.as_str(), s.count)).collect();
    assert_eq!(slices, [("even", 2), ("odd", 2)]);
    let shadows = Question { shadows: true, ..question.clone() };
    let found = performance_of(&folder, &shadows).unwrap();
    assert_eq!(found.all.unwrap().classification.unwrap().accuracy, 0.0);
    let nothing = Question { by: Some("input_nothing".into()), ..question };
    assert!(performance_of(&folder, &nothing).unwrap_err().contains("input_nothing"));
}

#[test]
fn numbers_are_scored_as_numbers() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    scored(&[10.0, 20.0]).for_each(|one| log.watcher().observe(&one));
    log.labels().take(vec![said("0", "a", 11.0), said("1", "b", 17.0)]);
    log.finish(PATIENCE);
    let question = Question { query: Query::of("credit"), ..Question::default() };
    let found = performance_of(&folder, &question).unwrap();
    let scores = found.all.unwrap().regression.unwrap();
    assert_eq!((scores.mean_absolute_error, scores.bias), (2.0, 1.0));
}

#[derive(serde::Deserialize)]
struct Golden {
    classification: Vec<GoldenClasses>,
    regression: Vec<GoldenNumbers>,
}

#[derive(serde::Deserialize)]
struct GoldenClasses {
    count: usize,
    actual: Vec<usize>,
    predicted: Vec<usize>,
    weight: Vec<f64>,
    probabilities: Vec<Vec<f64>>,
    accuracy: f64,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    confusion: Vec<Vec<f64>>,
    roc_auc: f64,
    log_loss: f64,
    brier: f64,
    calibration: Vec<(f64, f64)>,
    calibration_error: f64,
}

#[derive(serde::Deserialize)]
struct GoldenNumbers {
    actual: Vec<f64>,
    predicted: Vec<f64>,
    weight: Vec<f64>,
    mean_absolute_error: f64,
    root_mean_squared_error: f64,
    bias: f64,
    r2: f64,
}

#[track_caller]
fn check_close(a: Option<f64>, b: f64) {
    let a = a.unwrap_or(f64::NAN);
    assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn scores_are_those_of_scikit_learn() {
    let golden: Golden = serde_json::from_str(include_str!("../goldens/scores.json")).unwrap();
    assert_eq!((golden.classification.len(), golden.regression.len()), (4, 1));
    for one in golden.classification {
        let cases: Vec<Classified> = (0..one.actual.len())
            .map(|i| Classified {
                predicted: one.predicted[i],
                actual: one.actual[i],
                probabilities: one.probabilities[i].clone(),
                weight: one.weight[i],
            })
            .collect();
        let names: Vec<String> = (0..one.count).map(|class| class.to_string()).collect();
        let scores = classification(&cases, &names).unwrap();
        check_close(Some(scores.accuracy), one.accuracy);
        check_close(scores.roc_auc, one.roc_auc);
        check_close(scores.log_loss, one.log_loss);
        check_close(scores.brier, one.brier);
        check_close(scores.calibration_error, one.calibration_error);
        assert_eq!(scores.confusion, one.confusion);
        assert_eq!(scores.calibration.len(), one.calibration.len());
        for (ours, (predicted, observed)) in scores.calibration.iter().zip(one.calibration) {
            check_close(Some(ours.predicted), predicted);
            check_close(Some(ours.observed), observed);
        }
        for (class, ours) in scores.classes.iter().enumerate() {
            check_close(ours.precision, one.precision[class]);
            check_close(ours.recall, one.recall[class]);
            check_close(ours.f1, one.f1[class]);
        }
    }
    for one in golden.regression {
        let cases: Vec<Estimated> = (0..one.actual.len())
            .map(|i| Estimated {
                predicted: one.predicted[i],
                actual: one.actual[i],
                weight: one.weight[i],
            })
            .collect();
        let scores = regression(&cases).unwrap();
        check_close(Some(scores.mean_absolute_error), one.mean_absolute_error);
        check_close(Some(scores.root_mean_squared_error), one.root_mean_squared_error);
        check_close(Some(scores.bias), one.bias);
        check_close(scores.r2, one.r2);
    }
}

#[test]
fn the_newest_rows_are_found_by_what_they_are() {
    let folder = Folder::new();
    let log = Log::start(folder.store(), Options::default(), nothing).unwrap();
    show(&log.watcher(), 30);
    let mut failed = two_rows("failed");
    failed.at += Duration::from_secs(7200);
    failed.outcome = Outcome::Failed(ErrorCode::Internal);
    log.watcher().observe(&failed);
    log.finish(PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let find = |query: Query, count| {
        let columns = vec![Pattern::new("request_id"), Pattern::new("input_a*")];
        let query = Query { columns, ..query };
        let rows = runtime.block_on(newest(&folder.store(), &query, count)).unwrap();
        assert_eq!(rows.num_columns(), 2);
        strings(&rows, "request_id").into_iter().flatten().collect::<Vec<_>>()
    };
    let all = Query::of("credit");
    assert_eq!(find(all.clone(), 3), ["29", "failed", "failed"]);
    let code = Some("OK".to_owned());
    assert_eq!(find(Query { code, ..all.clone() }, 1), ["29"]);
    let id = Some("7".to_owned());
    assert_eq!(find(Query { id, ..all.clone() }, 9), ["7", "7"]);
    let since = jiff::Timestamp::from_second(1_700_000_001).ok();
    assert_eq!(find(Query { since, ..all.clone() }, 9), ["failed", "failed"]);
    assert_eq!(find(Query { until: since, ..all.clone() }, 1), ["29"]);
    let version = Some("9".to_owned());
    let query = Query { version, columns: vec![Pattern::new("time")], ..all };
    let rows = runtime.block_on(newest(&folder.store(), &query, 9)).unwrap();
    assert_eq!((rows.num_rows(), rows.num_columns()), (0, 1));
}

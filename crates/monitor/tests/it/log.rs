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
use monitor::log::{Log, ModelRules, Options, Pattern, Rules, Salt, Store, Treatment, Watcher};
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
    static CREDIT: LazyLock<Arc<Signature>> = LazyLock::new(credit);
    prediction(&CREDIT, id, vec![age, texts(&["ada", "bob"]), x])
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

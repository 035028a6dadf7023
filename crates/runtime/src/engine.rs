//! The door that every engine stands behind, and the choice between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Data, DataType, Dimension, InstanceSettings, Package, Signature, Tensor};

use crate::{Error, background, native, onnxruntime};

/// One way to run models.
pub trait Engine: Send + Sync {
    /// The name that users pin it by.
    fn name(&self) -> &'static str;

    /// Its version, and where it was found if it is not built in.
    fn version(&self) -> String;

    /// Whether it can run the package; the error names what it lacks.
    fn supports(&self, package: &Package) -> Result<(), Error>;

    /// Prepares the package to be run. The calling thread has the priority of those that serve, so
    /// that threads which the session keeps may be started here; what takes long and starts none
    /// belongs into the [`background`].
    fn load(&self, package: &Package, options: &LoadOptions) -> Result<Box<dyn Session>, Error>;
}

/// A model that an engine has prepared. Dropping it frees its memory.
pub trait Session: Send + Sync {
    /// Runs one batch. Takes the inputs in the signature's order and returns all outputs in the
    /// signature's order; an input left out by the caller is `None`.
    ///
    /// May be called from several threads at once.
    fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error>;
}

/// How a session is to be prepared.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Threads inside one run.
    pub threads: usize,
    /// How many runs may happen side by side.
    pub instances: usize,
    /// ONNX Runtime execution providers, most wanted first.
    pub providers: Vec<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: 1, instances: 1, providers: Vec::new() }
    }
}

/// An engine, and whether it can run a package.
#[derive(Clone, Debug)]
pub struct Supported {
    /// The engine's name.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// Why it cannot, if it cannot.
    pub refusal: Option<Error>,
}

/// What an engine's warm-up took.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The engine's name.
    pub engine: &'static str,
    /// The fastest of its runs of one row, or why it failed.
    pub time: Result<Duration, Error>,
}

/// A model ready to be run.
pub struct Loaded {
    signature: Arc<Signature>,
    engine: &'static str,
    measured: Vec<Measured>,
    session: Box<dyn Session>,
}

impl Loaded {
    /// What it takes and gives.
    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// The engine that runs it.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// How the engines that could run it did in their warm-up; empty if only one could.
    pub fn measured(&self) -> &[Measured] {
        &self.measured
    }

    /// Runs one batch; see [`Session::run`].
    pub fn run(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, Error> {
        self.session.run(inputs)
    }

    /// Wraps a session that was made elsewhere, for engines outside this crate.
    pub fn from_session(
        signature: Arc<Signature>,
        engine: &'static str,
        session: Box<dyn Session>,
    ) -> Self {
        Self { signature, engine, measured: Vec::new(), session }
    }
}

/// The engines of this machine.
pub struct Engines {
    engines: Vec<Box<dyn Engine>>,
    absent: Vec<(&'static str, Error)>,
}

impl Engines {
    /// Just these engines.
    pub fn new(engines: Vec<Box<dyn Engine>>) -> Self {
        Self { engines, absent: Vec::new() }
    }

    /// The native engine, and ONNX Runtime if its library can be opened.
    pub fn discover(search: &onnxruntime::Search) -> Self {
        let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(native::Native::default())];
        let mut absent = Vec::new();
        match onnxruntime::OnnxRuntime::discover(search) {
            Ok(engine) => engines.push(Box::new(engine)),
            Err(error) => absent.push((onnxruntime::NAME, error)),
        }
        Self { engines, absent }
    }

    /// Engines that were looked for and not found, and why.
    pub fn absent(&self) -> &[(&'static str, Error)] {
        &self.absent
    }

    /// Each engine, and whether it can run the package.
    pub fn supporting(&self, package: &Package) -> Vec<Supported> {
        let check = |engine: &dyn Engine| Supported {
            engine: engine.name(),
            version: engine.version(),
            refusal: engine.supports(package).err(),
        };
        self.engines.iter().map(|engine| check(engine.as_ref())).collect()
    }

    /// Each engine's name and version.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        self.engines.iter().map(|engine| (engine.name(), engine.version())).collect()
    }

    /// Loads the package with the pinned engine, or with the one that runs its warm-up fastest.
    ///
    /// Call it on a thread whose priority is that of the threads that serve: engines may start
    /// theirs from it. What takes time is done in the [`background`].
    pub fn load(&self, package: &Package, settings: &InstanceSettings) -> Result<Loaded, Error> {
        let options = LoadOptions {
            threads: settings.threads.unwrap_or(1),
            instances: settings.instances.unwrap_or(1),
            providers: settings.providers.clone(),
        };
        let mut refusals = Vec::new();
        let mut sessions = Vec::new();
        for engine in &self.engines {
            if settings.engine.as_deref().is_some_and(|pinned| pinned != engine.name()) {
                continue;
            }
            let supported = background(|| engine.supports(package)).map_err(no_thread)?;
            match supported.and_then(|()| engine.load(package, &options)) {
                Ok(session) => sessions.push((engine.name(), session)),
                Err(error) => refusals.push(error.at(engine.name())),
            }
        }
        let signature = Arc::new(package.manifest.signature.clone());
        let measured = if sessions.len() > 1 {
            background(|| measure(&signature, &sessions)).map_err(no_thread)?
        } else {
            Vec::new()
        };
        let rank = |position: usize| {
            let measured = measured.get(position).map(|measured| &measured.time);
            measured.and_then(|time| time.as_ref().ok().copied()).unwrap_or(Duration::MAX)
        };
        let Some(best) = (0..sessions.len()).min_by_key(|position| rank(*position)) else {
            return Err(self.nothing_runs_it(settings, refusals));
        };
        let (engine, session) = sessions.swap_remove(best);
        Ok(Loaded { signature, engine, measured, session })
    }

    fn nothing_runs_it(&self, settings: &InstanceSettings, refusals: Vec<Error>) -> Error {
        let mut reasons: Vec<String> = refusals.iter().map(Error::to_string).collect();
        for (name, error) in &self.absent {
            if settings.engine.as_deref().is_none_or(|pinned| pinned == *name) {
                reasons.push(format!("{name}: {error}"));
            }
        }
        if let (Some(pinned), true) = (&settings.engine, reasons.is_empty()) {
            let known: Vec<_> = self.engines.iter().map(|e| e.name()).collect();
            return Error::unsupported(format!(
                "no engine is called \"{pinned}\"; there are: {}",
                known.join(", ")
            ));
        }
        Error::unsupported(format!("no engine can run this model: {}", reasons.join("; ")))
    }
}

/// What is reported if there is no thread to do the work on.
pub(crate) fn no_thread(error: std::io::Error) -> Error {
    Error::internal(format!("cannot start a thread to load the model: {error}"))
}

/// Has each session run its warm-up, in their order.
fn measure(signature: &Signature, sessions: &[(&'static str, Box<dyn Session>)]) -> Vec<Measured> {
    let measure = |(engine, session): &(&'static str, Box<dyn Session>)| Measured {
        engine,
        time: warm_up(signature, session.as_ref()),
    };
    sessions.iter().map(measure).collect()
}

/// How long a warm-up may go on: enough to be past first-run effects, short enough not to hold
/// up a start.
const WARM_UP: Duration = Duration::from_millis(50);

/// A warm-up is over as well once this many runs have taken this long and the later half of them
/// was no faster than the first: a thousand small models are ready in seconds.
const STEADY_RUNS: usize = 16;
const STEADY_TIME: Duration = Duration::from_millis(1);

/// Runs a made-up row until the time is used up (at least twice) and returns the fastest run.
///
/// A model may refuse what was made up; that is reported, not fatal.
fn warm_up(signature: &Signature, session: &dyn Session) -> Result<Duration, Error> {
    let inputs = example_inputs(signature, 1);
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Some).collect();
    let start = Instant::now();
    let mut fastest = Duration::MAX;
    // The last round that was faster than all before by more than chance.
    let mut improved = 0;
    for round in 0.. {
        let before = Instant::now();
        session.run(&inputs)?;
        let time = before.elapsed();
        if time < fastest.mul_f64(0.95) {
            improved = round;
        }
        fastest = fastest.min(time);
        let all = start.elapsed();
        let is_steady = round >= STEADY_RUNS && improved <= round / 2 && all >= STEADY_TIME;
        if round >= 1 && (is_steady || all >= WARM_UP) {
            break;
        }
    }
    Ok(fastest)
}

/// Made-up inputs that fit a signature: `rows` rows where it is batched, 1 for every other
/// dimension that varies. Floats are spread over [0, 1), everything else is zero or empty.
pub fn example_inputs(signature: &Signature, rows: usize) -> Vec<Tensor> {
    let example = |spec: &model::TensorSpec| {
        let mut shape: Vec<usize> = match &spec.shape {
            Some(dims) => {
                dims.iter().map(|dim| if let Dimension::Fixed(n) = dim { *n } else { 1 }).collect()
            }
            None => vec![1],
        };
        if signature.batched {
            shape[0] = rows;
        }
        let count = model::element_count(&shape).unwrap_or(0);
        // Steps of the golden ratio never repeat and fill the interval evenly.
        let spread = |i: usize| (i as f64 * 0.618_033_988_75).fract();
        let data: Data = match spec.datatype {
            DataType::Fp32 => (0..count).map(|i| spread(i) as f32).collect::<Vec<_>>().into(),
            DataType::Fp64 => (0..count).map(spread).collect::<Vec<_>>().into(),
            other => return zeros(other, shape),
        };
        Tensor::new(shape, data).expect("the count was made for the shape")
    };
    signature.inputs.iter().map(example).collect()
}

/// A tensor of zeros, or of empty strings.
///
/// # Panics
/// If the shape has more elements than memory.
pub fn zeros(datatype: DataType, shape: Vec<usize>) -> Tensor {
    let count = model::element_count(&shape).expect("a shape that fits memory");
    let data = match datatype.size() {
        None => Data::Bytes(vec![bytes::Bytes::new(); count]),
        Some(size) => {
            Data::from_bytes(datatype, vec![0u8; count * size].into()).expect("whole elements")
        }
    };
    Tensor::new(shape, data).expect("the count was made for the shape")
}

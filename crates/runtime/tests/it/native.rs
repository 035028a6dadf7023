//! The native engine on whole models.

use model::{Package, Tensor};
use runtime::native::Native;
use runtime::{Engine, LoadOptions};

use crate::support::{close, shared};

fn run(package: &Package, input: &Tensor) -> Vec<Tensor> {
    let engine = Native::default();
    engine.supports(package).expect("supported");
    let session = engine.load(package, &LoadOptions::default()).expect("loads");
    session.run(&[Some(input)]).expect("runs")
}

fn assert_close(got: &[f32], wanted: &[f32]) {
    for (got, wanted) in got.iter().zip(wanted) {
        assert!(close(*got, *wanted), "got {got}, wanted {wanted}");
    }
}

/// Row 0 of `enc_v2.json`; the answer is in the folder's README.
const TOKENS: [i64; 64] = [
    517, 427, 4701, 5671, 1145, 7159, 7252, 7320, 7181, 608, 6525, 3087, 959, 1275, 1558, 2947,
    5995, 5008, 2295, 7827, 5908, 3543, 5731, 588, 1592, 7826, 6477, 5266, 1018, 4391, 4492, 1401,
    5774, 3327, 5146, 5797, 3367, 6562, 3151, 5226, 3262, 2622, 1788, 7387, 1634, 5971, 3759, 6,
    2427, 1707, 4458, 7557, 4967, 3384, 6568, 7338, 6715, 5558, 451, 3893, 2016, 4358, 921, 6057,
];

#[test]
fn runs_a_transformer() {
    let Some(package) = shared("enc.onnx") else { return };
    let tokens = Tensor::new(vec![1, 64], TOKENS.to_vec()).unwrap();
    let outputs = run(&package, &tokens);
    assert_eq!(outputs[0].shape(), [1, 256]);
    let got = outputs[0].as_slice::<f32>().unwrap();
    assert_close(&got[..3], &[-0.866_528_75, 0.358_649_64, -0.708_299_5]);
}

#[test]
fn an_integer_that_does_not_fit_is_refused_and_not_cut() {
    let Some(package) = shared("enc.onnx") else { return };
    let mut tokens = TOKENS.to_vec();
    tokens[5] += 1 << 32;
    let tokens = Tensor::new(vec![1, 64], tokens).unwrap();
    let session = Native::default().load(&package, &LoadOptions::default()).unwrap();
    let error = session.run(&[Some(&tokens)]).unwrap_err();
    assert_eq!(error.code(), model::ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("4294974455 does not fit"), "{error}");
}

#[test]
fn runs_a_convolutional_network() {
    let Some(package) = shared("cnn.onnx") else { return };
    let image: Vec<f32> = (0..3 * 64 * 64).map(|i| (i as f32 * 0.37).sin()).collect();
    let outputs = run(&package, &Tensor::new(vec![1, 3, 64, 64], image).unwrap());
    let got = outputs[0].as_slice::<f32>().unwrap();
    assert_eq!(got.len(), 1000);
    assert_close(&[got.iter().sum()], &[1.0]);
    // From ONNX Runtime. The probabilities are small: an absolute 1e-5 would say nothing.
    for (got, wanted) in got.iter().zip([0.001_026_870_6, 0.001_344_146_7, 0.000_972_658_2f32]) {
        assert!((got - wanted).abs() <= 1e-5 * wanted, "got {got}, wanted {wanted}");
    }
}

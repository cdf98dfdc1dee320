//! The model as it is fetched.

use std::sync::LazyLock;

use hearsay_embedding::{Error, MiniLm};
use hearsay_models::{ModelStore, Silent, cache_folder};

static MODEL: LazyLock<MiniLm> = LazyLock::new(|| {
    let models = ModelStore::open(cache_folder().expect("a folder")).fetch(&mut Silent).expect("models");
    MiniLm::load(&models.minilm.model, &models.minilm.tokenizer).expect("the model")
});

fn likeness(one: &str, other: &str) -> f32 {
    let [one, other] = [one, other].map(|text| MODEL.embed(text).expect("a vector"));
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

#[test]
fn what_means_the_like_points_the_same_way() {
    let near = likeness("How much does it cost?", "What is the price of this?");
    let far = likeness("How much does it cost?", "The dog sleeps in the garden.");
    assert!(near > 0.6 && far < 0.2, "{near} {far}");
    assert!((likeness("Hello there.", "Hello there.") - 1.0).abs() < 1e-5);
}

/// Of the same text by the model as it was published, in 32-bit floats.
#[test]
fn eight_bits_lose_little() {
    let expected = include!("minilm_published.in");
    for (text, vector) in expected {
        let found = MODEL.embed(text).unwrap();
        let likeness: f32 = found.iter().zip(vector).map(|(one, other): (_, f32)| one * other).sum();
        assert!(likeness > 0.96, "{text:?}: {likeness}");
    }
}

#[test]
fn anything_has_a_vector() {
    let texts = [
        String::new(),
        " ".repeat(10_000),
        "word ".repeat(200_000),
        "ß".repeat(5_000),
        "東京の会議".to_owned(),
        "\u{0}\u{1}\u{feff}".to_owned(),
        "x".repeat(1_000_000),
        "e\u{301}".repeat(3_000),
        "🦀".repeat(3_000),
    ];
    for text in texts {
        let vector = MODEL.embed(&text).unwrap();
        let length: f32 = vector.iter().map(|it| it * it).sum();
        assert!((length - 1.0).abs() < 1e-3, "{:?}: {length}", text.chars().take(9).collect::<String>());
    }
}

#[test]
fn files_that_are_not_the_model_are_named() {
    let folder = std::env::temp_dir();
    let Err(Error::Load { path, .. }) = MiniLm::load(&folder.join("no.onnx"), &folder.join("no.json")) else {
        panic!()
    };
    assert_eq!(path, folder.join("no.json"));
}

//! Makes the file that sentences are embedded with of MiniLM's weights, which are kept as named tensors (safetensors).
//!
//! The graph is written here: tokens of one sentence in, one vector for each out, which are to be averaged. Products run on
//! 8-bit integers, and so are the tokens' own vectors kept.

use std::collections::HashMap;

use serde::Deserialize;

use super::{
    Fault, encode_as,
    growing::{Growing, INT32, Size, Weights, int},
    onnx::{Attribute, Graph, Tensor},
    quantize,
};

const OPSET: i64 = 17;
/// Of all-MiniLM-L6-v2: layers, tokens it knows, the longest text in tokens.
const LAYERS: usize = 6;
const VOCABULARY: usize = 30_522;
const LONGEST: usize = 512;
const SMALL: Size = Size { heads: 12, width: 32, epsilon: 1e-12 };

/// What [`convert`] counts to.
pub(crate) const STEPS: u64 = 2;

pub(crate) fn convert(model: &[u8], mut step: impl FnMut(u64)) -> Result<Vec<u8>, Fault> {
    step(0);
    let weights = read(model)?;
    step(1);
    let mut graph = graph(&weights)?;
    quantize::quantize(&mut graph)?;
    super::graph::drop_unread(&mut graph);
    Ok(encode_as(graph, "minilm", OPSET))
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The length of a list of tensors, the list as JSON, then their numbers.
fn read(file: &[u8]) -> Result<Weights, Fault> {
    let short = || Fault("it ends too early".to_owned());
    let (length, rest) = file.split_first_chunk().ok_or_else(short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| short())?;
    let (list, numbers) = rest.split_at_checked(length).ok_or_else(short)?;
    let list: HashMap<String, serde_json::Value> =
        serde_json::from_slice(list).map_err(|error| Fault(format!("its list of tensors cannot be read: {error}")))?;
    let mut tensors = HashMap::new();
    for (name, entry) in list {
        // What the file says of itself, and the numbers 0 to 511.
        if name == "__metadata__" || name.ends_with("position_ids") {
            continue;
        }
        let entry: Entry =
            serde_json::from_value(entry).map_err(|error| Fault(format!("{name:?} cannot be read: {error}")))?;
        if entry.dtype != "F32" {
            return Err(Fault(format!("{name:?} holds {}, not F32", entry.dtype)));
        }
        let [from, until] = entry.data_offsets;
        let (values, _) = numbers.get(from..until).ok_or_else(short)?.as_chunks();
        let values = values.iter().map(|it| f32::from_le_bytes(*it)).collect();
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        tensors.insert(name.replace('.', "/"), (entry.shape, values));
    }
    Ok(Weights(tensors))
}

fn graph(weights: &Weights) -> Result<Graph, Fault> {
    let size = SMALL.size();
    let mut it = Growing::new(SMALL);
    let tokens = it.input("input_ids".into(), INT32, &["1", "tokens"]);
    let words = weights.get("embeddings/word_embeddings/weight", &[VOCABULARY, size])?;
    let mut x = rows(&mut it, words, &tokens);
    // Every token is of the first of two texts.
    let kinds = weights.get("embeddings/token_type_embeddings/weight", &[2, size])?;
    let places = weights.get("embeddings/position_embeddings/weight", &[LONGEST, size])?;
    let places: Vec<f32> =
        places.chunks_exact(size).flat_map(|row| row.iter().zip(kinds).map(|(place, kind)| place + kind)).collect();
    let places = it.floats(&[LONGEST, size], &places);
    let (from, until, axis) = (it.integers(&[0]), it.length(&tokens, 1), it.integers(&[0]));
    let places = it.push("Slice", &[&places, &from, &until, &axis], Vec::new());
    x = it.push("Add", &[&x, &places], Vec::new());
    x = it.norm(weights, "embeddings/LayerNorm", &x)?;
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder/layer/{layer}/{part}");
        let part = |it: &mut Growing, what: &str| {
            it.linear(weights, &name(&format!("attention/self/{what}")), &x, (size, size), 0..size)
        };
        let (query, key, value) = (part(&mut it, "query")?, part(&mut it, "key")?, part(&mut it, "value")?);
        let (key, value) = (it.heads(&key), it.heads(&value));
        let (seen, _) = it.attend(&query, &key, &value, None);
        let seen = it.linear(weights, &name("attention/output/dense"), &seen, (size, size), 0..size)?;
        let sum = it.push("Add", &[&x, &seen], Vec::new());
        x = it.norm(weights, &name("attention/output/LayerNorm"), &sum)?;
        let inner = it.linear(weights, &name("intermediate/dense"), &x, (4 * size, size), 0..4 * size)?;
        let inner = it.gelu(&inner);
        let inner = it.linear(weights, &name("output/dense"), &inner, (size, 4 * size), 0..size)?;
        let sum = it.push("Add", &[&x, &inner], Vec::new());
        x = it.norm(weights, &name("output/LayerNorm"), &sum)?;
    }
    it.output("vectors", &x, &["1", "tokens", "384"]);
    Ok(it.graph)
}

/// The rows of a matrix that tokens name; kept as 8-bit integers, with the factor of each row.
fn rows(it: &mut Growing, matrix: &[f32], tokens: &str) -> String {
    let size = SMALL.size();
    let scales: Vec<f32> = matrix
        .chunks_exact(size)
        .map(|row| row.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs())) / 127.0)
        .collect();
    let rounded = |(row, scale): (&[f32], &f32)| -> Vec<u8> {
        row.iter().map(|value| ((value / scale).round_ties_even() as i8).cast_unsigned()).collect()
    };
    let raw: Vec<u8> = matrix.chunks_exact(size).zip(&scales).flat_map(rounded).collect();
    let dims = vec![scales.len() as i64, size as i64];
    it.graph.initializers.push(Tensor { dims, data_type: Tensor::I8, name: "words".into(), raw });
    let scales = it.floats(&[scales.len(), 1], &scales);
    let row = it.push("Gather", &["words", tokens], vec![int("axis", 0)]);
    let to =
        Attribute { name: "to".into(), kind: Attribute::INT, i: Some(i64::from(Tensor::F32)), ..Attribute::default() };
    let row = it.push("Cast", &[&row], vec![to]);
    let scale = it.push("Gather", &[&scales, tokens], vec![int("axis", 0)]);
    it.push("Mul", &[&row, &scale], Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(list: &str, numbers: &[f32]) -> Vec<u8> {
        let numbers = numbers.iter().flat_map(|it| it.to_le_bytes());
        (list.len() as u64).to_le_bytes().into_iter().chain(list.bytes()).chain(numbers).collect()
    }

    #[test]
    fn named_tensors_are_read() {
        let list = r#"{"__metadata__":{"format":"pt"},"a.LayerNorm.weight":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        let weights = read(&file(list, &[1.0, 2.0, 3.0])).unwrap();
        assert_eq!(weights.get("a/LayerNorm/gamma", &[2]).unwrap(), [2.0, 3.0]);
    }

    #[test]
    fn what_is_not_the_model_is_refused_by_name() {
        let fault = |file: &[u8]| convert(file, |_| ()).unwrap_err().0;
        assert_eq!(fault(b"1234"), "it ends too early");
        assert_eq!(fault(&[255; 20]), "it ends too early");
        assert!(fault(&file("[]", &[])).starts_with("its list of tensors cannot be read: "));
        assert_eq!(
            fault(&file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,9]}}"#, &[0.0])),
            "it ends too early"
        );
        assert_eq!(
            fault(&file(r#"{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}"#, &[0.0])),
            "\"a\" holds BF16, not F32"
        );
        assert_eq!(fault(&file("{}", &[])), "it has no \"embeddings/word_embeddings/weight\"");
    }
}

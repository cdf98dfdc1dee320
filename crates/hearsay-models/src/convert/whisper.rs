//! Makes the files the engine runs of Whisper's weights as CTranslate2 keeps them: a list of named tensors, no graph.
//!
//! The graphs are written here, in the two parts that the other model has, too: an encoder that ends in what cross-attention
//! needs of it, and a decoder for any number of tokens behind any number of past ones. Products run on 8-bit integers.

use std::collections::HashMap;

use super::{
    Converted, Fault, encode_as,
    growing::{Growing, INT32, Size, Weights, int, ints},
    onnx::{Graph, Tensor},
    quantize,
};

/// The version of the format and of its description of Whisper that is read.
const VERSION: u32 = 6;
const SPEC: &str = "WhisperSpec";
/// How 16-bit floats are marked.
const HALF: u8 = 4;

const OPSET: i64 = 17;

/// Layers of encoder and decoder of Whisper base.
const LAYERS: usize = 6;
const BASE: Size = Size { heads: 8, width: 64, epsilon: 1e-5 };
/// The first decoder layer whose cross-attention is given.
const ALIGNED_FROM: usize = 3;

/// What [`convert`] counts to.
pub(crate) const STEPS: u64 = 4;

pub(crate) fn convert(model: &[u8], mut step: impl FnMut(u64)) -> Result<Converted, Fault> {
    step(0);
    let weights = read(model)?;
    step(1);
    let encoder = finish(encoder(&weights)?)?;
    step(2);
    let decoder = decoder(&weights)?;
    step(3);
    Ok(Converted { encoder, decoder: finish(decoder)? })
}

fn finish(mut graph: Graph) -> Result<Vec<u8>, Fault> {
    quantize::quantize(&mut graph)?;
    super::graph::drop_unread(&mut graph);
    Ok(encode_as(graph, "whisper", OPSET))
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let short = || Fault(format!("it ends {} bytes too early", count - self.0.len().min(count)));
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Its length with the zero at its end, then both.
    fn text(&mut self) -> Result<String, Fault> {
        let length = self.take(2)?;
        let bytes = self.take(usize::from(u16::from_le_bytes([length[0], length[1]])))?;
        Ok(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
    }
}

fn read(file: &[u8]) -> Result<Weights, Fault> {
    let mut file = Bytes(file);
    let (version, spec) = (file.word()?, file.text()?);
    if (version, spec.as_str()) != (VERSION, SPEC) {
        return Err(Fault(format!("it is {spec:?} in version {version}, not {SPEC:?} in version {VERSION}")));
    }
    file.word()?;
    let mut tensors = HashMap::new();
    for _ in 0..file.word()? {
        let name = file.text()?;
        let dims = (0..file.byte()?).map(|_| Ok(file.word()? as usize)).collect::<Result<Vec<_>, Fault>>()?;
        let (kind, length) = (file.byte()?, file.word()? as usize);
        let bytes = file.take(length)?;
        // The others are single numbers that say how the model is built.
        if kind == HALF {
            let (halves, _) = bytes.as_chunks();
            let values = halves.iter().map(|it| half(u16::from_le_bytes(*it))).collect();
            tensors.insert(name, (dims, values));
        }
    }
    Ok(Weights(tensors))
}

/// A 16-bit float.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 => f32::INFINITY,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// The layer that each position goes through by itself.
fn feed_forward(it: &mut Growing, weights: &Weights, name: &str, from: &str) -> Result<String, Fault> {
    let size = it.size.size();
    let inner = it.norm(weights, &format!("{name}/layer_norm"), from)?;
    let inner = it.linear(weights, &format!("{name}/linear_0"), &inner, (4 * size, size), 0..4 * size)?;
    let inner = it.gelu(&inner);
    let inner = it.linear(weights, &format!("{name}/linear_1"), &inner, (size, 4 * size), 0..size)?;
    Ok(it.push("Add", &[from, &inner], Vec::new()))
}

fn encoder(weights: &Weights) -> Result<Graph, Fault> {
    let size = BASE.size();
    let mut it = Growing::new(BASE);
    let mut x = it.input("mel".into(), Tensor::F32, &["1", "80", "frames"]);
    for (name, inputs, stride) in [("encoder/conv1", 80, 1), ("encoder/conv2", size, 2)] {
        let matrix = it.floats(&[size, inputs, 3], weights.get(&format!("{name}/weight"), &[size, inputs, 3])?);
        let bias = it.floats(&[size], weights.get(&format!("{name}/bias"), &[size])?);
        let how = vec![ints("kernel_shape", &[3]), ints("pads", &[1, 1]), ints("strides", &[stride])];
        x = it.push("Conv", &[&x, &matrix, &bias], how);
        x = it.gelu(&x);
    }
    x = it.push("Transpose", &[&x], vec![ints("perm", &[0, 2, 1])]);
    let places = it.floats(&[1_500, size], weights.get("encoder/position_encodings/encodings", &[1_500, size])?);
    let (from, until, axis) = (it.integers(&[0]), it.length(&x, 1), it.integers(&[0]));
    let places = it.push("Slice", &[&places, &from, &until, &axis], Vec::new());
    x = it.push("Add", &[&x, &places], Vec::new());
    for layer in 0..LAYERS {
        let name = format!("encoder/layer_{layer}/self_attention");
        let inner = it.norm(weights, &format!("{name}/layer_norm"), &x)?;
        let part = |it: &mut Growing, n: usize| {
            it.linear(weights, &format!("{name}/linear_0"), &inner, (3 * size, size), n * size..(n + 1) * size)
        };
        let (query, key, value) = (part(&mut it, 0)?, part(&mut it, 1)?, part(&mut it, 2)?);
        let (key, value) = (it.heads(&key), it.heads(&value));
        let (seen, _) = it.attend(&query, &key, &value, None);
        let seen = it.linear(weights, &format!("{name}/linear_1"), &seen, (size, size), 0..size)?;
        x = it.push("Add", &[&x, &seen], Vec::new());
        x = feed_forward(&mut it, weights, &format!("encoder/layer_{layer}/ffn"), &x)?;
    }
    x = it.norm(weights, "encoder/layer_norm", &x)?;
    for layer in 0..LAYERS {
        let name = format!("decoder/layer_{layer}/attention/linear_1");
        for (n, what) in ["key", "value"].into_iter().enumerate() {
            let part = it.linear(weights, &name, &x, (2 * size, size), n * size..(n + 1) * size)?;
            let part = it.heads(&part);
            it.output(&format!("cross.{layer}.{what}"), &part, &["1", "8", "heard", "64"]);
        }
    }
    Ok(it.graph)
}

fn decoder(weights: &Weights) -> Result<Graph, Fault> {
    let size = BASE.size();
    let mut it = Growing::new(BASE);
    let tokens = it.input("input_ids".into(), INT32, &["1", "tokens"]);
    let mask = it.input("mask".into(), Tensor::F32, &["tokens", "all"]);
    let vocabulary = weights.0.get("decoder/embeddings/weight").and_then(|it| it.0.first().copied()).unwrap_or(0);
    let embeddings = weights.get("decoder/embeddings/weight", &[vocabulary, size])?;
    let rows = it.floats(&[vocabulary, size], embeddings);
    let mut x = it.push("Gather", &[&rows, &tokens], vec![int("axis", 0)]);
    let past = |layer: usize, what: &str| format!("past_key_values.{layer}.decoder.{what}");
    let mut pasts = Vec::new();
    for layer in 0..LAYERS {
        let each = ["key", "value"].map(|what| it.input(past(layer, what), Tensor::F32, &["1", "8", "past", "64"]));
        pasts.push(each);
    }
    let places = it.floats(&[448, size], weights.get("decoder/position_encodings/encodings", &[448, size])?);
    let (from, more, axis) = (it.length(&pasts[0][0], 2), it.length(&tokens, 1), it.integers(&[0]));
    let until = it.push("Add", &[&from, &more], Vec::new());
    let places = it.push("Slice", &[&places, &from, &until, &axis], Vec::new());
    x = it.push("Add", &[&x, &places], Vec::new());
    for (layer, [past_key, past_value]) in pasts.into_iter().enumerate() {
        let name = format!("decoder/layer_{layer}/self_attention");
        let inner = it.norm(weights, &format!("{name}/layer_norm"), &x)?;
        let part = |it: &mut Growing, n: usize| {
            it.linear(weights, &format!("{name}/linear_0"), &inner, (3 * size, size), n * size..(n + 1) * size)
        };
        let (query, key, value) = (part(&mut it, 0)?, part(&mut it, 1)?, part(&mut it, 2)?);
        let (key, value) = (it.heads(&key), it.heads(&value));
        let key = it.push("Concat", &[&past_key, &key], vec![int("axis", 2)]);
        let value = it.push("Concat", &[&past_value, &value], vec![int("axis", 2)]);
        it.output(&format!("present.{layer}.decoder.key"), &key, &["1", "8", "all", "64"]);
        it.output(&format!("present.{layer}.decoder.value"), &value, &["1", "8", "all", "64"]);
        let (seen, _) = it.attend(&query, &key, &value, Some(&mask));
        let seen = it.linear(weights, &format!("{name}/linear_1"), &seen, (size, size), 0..size)?;
        x = it.push("Add", &[&x, &seen], Vec::new());

        let name = format!("decoder/layer_{layer}/attention");
        let heard = |what: &str| format!("past_key_values.{layer}.encoder.{what}");
        let key = it.input(heard("key"), Tensor::F32, &["1", "8", "heard", "64"]);
        let value = it.input(heard("value"), Tensor::F32, &["1", "8", "heard", "64"]);
        let inner = it.norm(weights, &format!("{name}/layer_norm"), &x)?;
        let query = it.linear(weights, &format!("{name}/linear_0"), &inner, (size, size), 0..size)?;
        let (seen, looked) = it.attend(&query, &key, &value, None);
        if layer >= ALIGNED_FROM {
            it.output(&format!("xattn.{layer}"), &looked, &["1", "8", "tokens", "heard"]);
        }
        let seen = it.linear(weights, &format!("{name}/linear_2"), &seen, (size, size), 0..size)?;
        x = it.push("Add", &[&x, &seen], Vec::new());
        x = feed_forward(&mut it, weights, &format!("decoder/layer_{layer}/ffn"), &x)?;
    }
    x = it.norm(weights, "decoder/layer_norm", &x)?;
    let turned: Vec<f32> =
        (0..size).flat_map(|column| (0..vocabulary).map(move |row| embeddings[row * size + column])).collect();
    let turned = it.floats(&[size, vocabulary], &turned);
    let logits = it.push("MatMul", &[&x, &turned], Vec::new());
    it.output("logits", &logits, &["1", "tokens", "vocabulary"]);
    Ok(it.graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read() {
        for (bits, expected) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0, 0.0)]
        {
            assert_eq!(half(bits), expected);
        }
    }

    #[test]
    fn what_is_not_whisper_is_refused_by_name() {
        let fault = |file: &[u8]| read(file).err().map(|it| it.0).unwrap();
        assert_eq!(fault(&[6, 0, 0]), "it ends 1 bytes too early");
        let mut file = 6u32.to_le_bytes().to_vec();
        file.extend(b"\x05\x00Spec\0");
        assert_eq!(fault(&file), "it is \"Spec\" in version 6, not \"WhisperSpec\" in version 6");
        let none = Weights(HashMap::new());
        assert_eq!(encoder(&none).err().unwrap().0, "it has no \"encoder/conv1/weight\"");
    }
}

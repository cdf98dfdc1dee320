//! Makes the files the engine runs of Whisper's weights as CTranslate2 keeps them: a list of named tensors, no graph.
//!
//! The graphs are written here, in the two parts that the other model has, too: an encoder that ends in what cross-attention
//! needs of it, and a decoder for any number of tokens behind any number of past ones. Products run on 8-bit integers.

use std::collections::HashMap;

use super::{
    Converted, Fault, encode_as,
    fold::node,
    onnx::{Attribute, Dim, Graph, Node, Shape, Tensor, TensorType, Type, ValueInfo},
    quantize,
};

/// The version of the format and of its description of Whisper that is read.
const VERSION: u32 = 6;
const SPEC: &str = "WhisperSpec";
/// How 16-bit floats are marked.
const HALF: u8 = 4;

const OPSET: i64 = 17;
const INT32: i32 = 6;
const INT64: i32 = 7;

/// Layers of encoder and decoder, heads, and a head's width, of Whisper base.
const LAYERS: usize = 6;
const HEADS: i64 = 8;
const WIDTH: i64 = 64;
/// The first decoder layer whose cross-attention is given.
const ALIGNED_FROM: usize = 3;

/// What [`convert`] counts to.
pub(crate) const STEPS: u64 = 4;

pub(crate) fn convert(model: &[u8], mut step: impl FnMut(u64)) -> Result<Converted, Fault> {
    step(0);
    let weights = Weights::read(model)?;
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

struct Weights(HashMap<String, (Vec<usize>, Vec<f32>)>);

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

impl Weights {
    fn read(file: &[u8]) -> Result<Self, Fault> {
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
        Ok(Self(tensors))
    }

    fn get(&self, name: &str, dims: &[usize]) -> Result<&[f32], Fault> {
        let (found, values) = self.0.get(name).ok_or_else(|| Fault(format!("it has no {name:?}")))?;
        if found != dims || values.len() != dims.iter().product::<usize>() {
            return Err(Fault(format!("{name:?} is {found:?}, not {dims:?}")));
        }
        Ok(values)
    }
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

/// A graph as it grows.
#[derive(Default)]
struct Growing {
    graph: Graph,
    count: usize,
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), kind: Attribute::INTS, ints: values.to_vec(), ..Attribute::default() }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), kind: Attribute::INT, i: Some(value), ..Attribute::default() }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute { name: name.into(), kind: Attribute::FLOAT, f: Some(value), ..Attribute::default() }
}

impl Growing {
    fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        self.count += 1;
        let output = format!("{op}.{}", self.count);
        self.graph.nodes.push(node(op, inputs, &output, attributes));
        output
    }

    fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.count += 1;
        let name = format!("weight.{}", self.count);
        let dims = dims.iter().map(|it| *it as i64).collect();
        self.graph.initializers.push(Tensor::of_floats(name.clone(), dims, values));
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        self.count += 1;
        let name = format!("shape.{}", self.count);
        let raw = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let tensor = Tensor { dims: vec![values.len() as i64], data_type: INT64, name: name.clone(), raw };
        self.graph.initializers.push(tensor);
        name
    }

    fn input(&mut self, name: String, elem: i32, dims: &[&str]) -> String {
        let mut info = ValueInfo::floats(name.clone(), dims);
        if let Some(tensor) = info.kind.as_mut().and_then(|it| it.tensor.as_mut()) {
            tensor.elem = elem;
        }
        self.graph.inputs.push(info);
        name
    }

    fn output(&mut self, name: &str, from: &str, dims: &[&str]) {
        self.graph.nodes.push(Node { name: name.into(), ..node("Identity", &[from], name, Vec::new()) });
        let dims = dims
            .iter()
            .map(|it| Dim { value: it.parse().ok(), param: it.parse::<i64>().is_err().then(|| (*it).to_owned()) });
        let tensor = TensorType { elem: Tensor::F32, shape: Some(Shape { dims: dims.collect() }) };
        self.graph.outputs.push(ValueInfo { name: name.into(), kind: Some(Type { tensor: Some(tensor) }) });
    }

    /// Rows `rows` of a linear layer that has `all` of them, for `width` inputs: turned to what stands right in a product.
    fn linear(
        &mut self,
        weights: &Weights,
        name: &str,
        from: &str,
        (all, width): (usize, usize),
        rows: std::ops::Range<usize>,
    ) -> Result<String, Fault> {
        let matrix = weights.get(&format!("{name}/weight"), &[all, width])?;
        let bias = &weights.get(&format!("{name}/bias"), &[all])?[rows.clone()];
        let turned: Vec<f32> =
            (0..width).flat_map(|column| rows.clone().map(move |row| matrix[row * width + column])).collect();
        let (turned, bias) = (self.floats(&[width, rows.len()], &turned), self.floats(&[rows.len()], bias));
        let product = self.push("MatMul", &[from, &turned], Vec::new());
        Ok(self.push("Add", &[&product, &bias], Vec::new()))
    }

    fn norm(&mut self, weights: &Weights, name: &str, from: &str) -> Result<String, Fault> {
        let size = (HEADS * WIDTH) as usize;
        let gamma = self.floats(&[size], weights.get(&format!("{name}/gamma"), &[size])?);
        let beta = self.floats(&[size], weights.get(&format!("{name}/beta"), &[size])?);
        Ok(self.push("LayerNormalization", &[from, &gamma, &beta], vec![int("axis", -1), float("epsilon", 1e-5)]))
    }

    fn gelu(&mut self, from: &str) -> String {
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|it| self.floats(&[], &[it]));
        let inner = self.push("Div", &[from, &root], Vec::new());
        let inner = self.push("Erf", &[&inner], Vec::new());
        let inner = self.push("Add", &[&inner, &one], Vec::new());
        let product = self.push("Mul", &[from, &inner], Vec::new());
        self.push("Mul", &[&product, &half], Vec::new())
    }

    /// `[1, n, 512]` as `[1, 8, n, 64]`.
    fn heads(&mut self, from: &str) -> String {
        let shape = self.integers(&[0, 0, HEADS, WIDTH]);
        let split = self.push("Reshape", &[from, &shape], Vec::new());
        self.push("Transpose", &[&split], vec![ints("perm", &[0, 2, 1, 3])])
    }

    /// Answers what it saw, before its output layer, and where it looked.
    fn attend(&mut self, query: &str, key: &str, value: &str, mask: Option<&str>) -> (String, String) {
        let scale = self.floats(&[], &[(WIDTH as f32).powf(-0.5)]);
        let query = self.push("Mul", &[query, &scale], Vec::new());
        let query = self.heads(&query);
        let key = self.push("Transpose", &[key], vec![ints("perm", &[0, 1, 3, 2])]);
        let mut scores = self.push("MatMul", &[&query, &key], Vec::new());
        if let Some(mask) = mask {
            scores = self.push("Add", &[&scores, mask], Vec::new());
        }
        let looked = self.push("Softmax", &[&scores], vec![int("axis", -1)]);
        let seen = self.push("MatMul", &[&looked, value], Vec::new());
        let seen = self.push("Transpose", &[&seen], vec![ints("perm", &[0, 2, 1, 3])]);
        let shape = self.integers(&[0, 0, HEADS * WIDTH]);
        (self.push("Reshape", &[&seen, &shape], Vec::new()), looked)
    }

    fn feed_forward(&mut self, weights: &Weights, name: &str, from: &str) -> Result<String, Fault> {
        let size = (HEADS * WIDTH) as usize;
        let inner = self.norm(weights, &format!("{name}/layer_norm"), from)?;
        let inner = self.linear(weights, &format!("{name}/linear_0"), &inner, (4 * size, size), 0..4 * size)?;
        let inner = self.gelu(&inner);
        let inner = self.linear(weights, &format!("{name}/linear_1"), &inner, (size, 4 * size), 0..size)?;
        Ok(self.push("Add", &[from, &inner], Vec::new()))
    }

    /// One dimension of a value, as a list of one number.
    fn size(&mut self, of: &str, dimension: i64) -> String {
        let shape = self.push("Shape", &[of], Vec::new());
        let index = self.integers(&[dimension]);
        self.push("Gather", &[&shape, &index], vec![int("axis", 0)])
    }
}

fn encoder(weights: &Weights) -> Result<Graph, Fault> {
    let size = (HEADS * WIDTH) as usize;
    let mut it = Growing::default();
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
    let (from, until, axis) = (it.integers(&[0]), it.size(&x, 1), it.integers(&[0]));
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
        x = it.feed_forward(weights, &format!("encoder/layer_{layer}/ffn"), &x)?;
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
    let size = (HEADS * WIDTH) as usize;
    let mut it = Growing::default();
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
    let (from, more, axis) = (it.size(&pasts[0][0], 2), it.size(&tokens, 1), it.integers(&[0]));
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
        x = it.feed_forward(weights, &format!("decoder/layer_{layer}/ffn"), &x)?;
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
        let fault = |file: &[u8]| Weights::read(file).err().map(|it| it.0).unwrap();
        assert_eq!(fault(&[6, 0, 0]), "it ends 1 bytes too early");
        let mut file = 6u32.to_le_bytes().to_vec();
        file.extend(b"\x05\x00Spec\0");
        assert_eq!(fault(&file), "it is \"Spec\" in version 6, not \"WhisperSpec\" in version 6");
        let none = Weights(HashMap::new());
        assert_eq!(encoder(&none).err().unwrap().0, "it has no \"encoder/conv1/weight\"");
    }
}

//! Graphs that are written here, of named weights.

use std::collections::HashMap;

use super::{
    Fault,
    fold::node,
    onnx::{Attribute, Dim, Graph, Node, Shape, Tensor, TensorType, Type, ValueInfo},
};

pub(crate) const INT32: i32 = 6;
const INT64: i32 = 7;

/// Tensors by name: their dimensions and values.
pub(crate) struct Weights(pub HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    pub(crate) fn get(&self, name: &str, dims: &[usize]) -> Result<&[f32], Fault> {
        let (found, values) = self.0.get(name).ok_or_else(|| Fault(format!("it has no {name:?}")))?;
        if found != dims || values.len() != dims.iter().product::<usize>() {
            return Err(Fault(format!("{name:?} is {found:?}, not {dims:?}")));
        }
        Ok(values)
    }
}

/// How wide a transformer is, and what its norms add to a variance.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub heads: i64,
    /// Of one head.
    pub width: i64,
    pub epsilon: f32,
}

impl Size {
    pub(crate) fn size(self) -> usize {
        (self.heads * self.width) as usize
    }
}

/// A graph as it grows.
pub(crate) struct Growing {
    pub graph: Graph,
    pub size: Size,
    count: usize,
}

pub(crate) fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), kind: Attribute::INTS, ints: values.to_vec(), ..Attribute::default() }
}

pub(crate) fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), kind: Attribute::INT, i: Some(value), ..Attribute::default() }
}

pub(crate) fn float(name: &str, value: f32) -> Attribute {
    Attribute { name: name.into(), kind: Attribute::FLOAT, f: Some(value), ..Attribute::default() }
}

impl Growing {
    pub(crate) fn new(size: Size) -> Self {
        Self { graph: Graph::default(), size, count: 0 }
    }

    pub(crate) fn push(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        self.count += 1;
        let output = format!("{op}.{}", self.count);
        self.graph.nodes.push(node(op, inputs, &output, attributes));
        output
    }

    pub(crate) fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.count += 1;
        let name = format!("weight.{}", self.count);
        let dims = dims.iter().map(|it| *it as i64).collect();
        self.graph.initializers.push(Tensor::of_floats(name.clone(), dims, values));
        name
    }

    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        self.count += 1;
        let name = format!("shape.{}", self.count);
        let raw = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        let tensor = Tensor { dims: vec![values.len() as i64], data_type: INT64, name: name.clone(), raw };
        self.graph.initializers.push(tensor);
        name
    }

    pub(crate) fn input(&mut self, name: String, elem: i32, dims: &[&str]) -> String {
        let mut info = ValueInfo::floats(name.clone(), dims);
        if let Some(tensor) = info.kind.as_mut().and_then(|it| it.tensor.as_mut()) {
            tensor.elem = elem;
        }
        self.graph.inputs.push(info);
        name
    }

    pub(crate) fn output(&mut self, name: &str, from: &str, dims: &[&str]) {
        self.graph.nodes.push(Node { name: name.into(), ..node("Identity", &[from], name, Vec::new()) });
        let dims = dims
            .iter()
            .map(|it| Dim { value: it.parse().ok(), param: it.parse::<i64>().is_err().then(|| (*it).to_owned()) });
        let tensor = TensorType { elem: Tensor::F32, shape: Some(Shape { dims: dims.collect() }) };
        self.graph.outputs.push(ValueInfo { name: name.into(), kind: Some(Type { tensor: Some(tensor) }) });
    }

    /// Rows `rows` of a linear layer that has `all` of them, for `width` inputs: turned to what stands right in a product.
    pub(crate) fn linear(
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

    pub(crate) fn norm(&mut self, weights: &Weights, name: &str, from: &str) -> Result<String, Fault> {
        let size = self.size.size();
        let gamma = self.floats(&[size], weights.get(&format!("{name}/gamma"), &[size])?);
        let beta = self.floats(&[size], weights.get(&format!("{name}/beta"), &[size])?);
        Ok(self.push(
            "LayerNormalization",
            &[from, &gamma, &beta],
            vec![int("axis", -1), float("epsilon", self.size.epsilon)],
        ))
    }

    pub(crate) fn gelu(&mut self, from: &str) -> String {
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|it| self.floats(&[], &[it]));
        let inner = self.push("Div", &[from, &root], Vec::new());
        let inner = self.push("Erf", &[&inner], Vec::new());
        let inner = self.push("Add", &[&inner, &one], Vec::new());
        let product = self.push("Mul", &[from, &inner], Vec::new());
        self.push("Mul", &[&product, &half], Vec::new())
    }

    /// `[1, n, size]` as `[1, heads, n, width]`.
    pub(crate) fn heads(&mut self, from: &str) -> String {
        let shape = self.integers(&[0, 0, self.size.heads, self.size.width]);
        let split = self.push("Reshape", &[from, &shape], Vec::new());
        self.push("Transpose", &[&split], vec![ints("perm", &[0, 2, 1, 3])])
    }

    /// Answers what it saw, before its output layer, and where it looked.
    pub(crate) fn attend(&mut self, query: &str, key: &str, value: &str, mask: Option<&str>) -> (String, String) {
        let scale = self.floats(&[], &[(self.size.width as f32).powf(-0.5)]);
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
        let shape = self.integers(&[0, 0, self.size.heads * self.size.width]);
        (self.push("Reshape", &[&seen, &shape], Vec::new()), looked)
    }

    /// One dimension of a value, as a list of one number.
    pub(crate) fn length(&mut self, of: &str, dimension: i64) -> String {
        let shape = self.push("Shape", &[of], Vec::new());
        let index = self.integers(&[dimension]);
        self.push("Gather", &[&shape, &index], vec![int("axis", 0)])
    }
}

//! Matrix products on 8-bit integers: the left side quantised at each run, the right side here, column by column.

use std::collections::{HashMap, HashSet};

use super::{
    Fault,
    fold::node,
    onnx::{Attribute, Graph, Node, Tensor},
};

/// Largest magnitude of a weight. Seven bits: the AVX2 instruction for u8 by i8 adds two products in 16 bits and saturates
/// with eight.
const LARGEST: f32 = 64.0;

/// Replaces every product with a constant matrix. Nodes must be, and stay, in order.
pub(crate) fn quantize(graph: &mut Graph) -> Result<(), Fault> {
    let matrices: HashMap<String, usize> = graph
        .initializers
        .iter()
        .enumerate()
        .filter(|(_, it)| it.dims.len() == 2 && it.data_type == Tensor::F32)
        .map(|(index, it)| (it.name.clone(), index))
        .collect();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut weights: Vec<Tensor> = Vec::new();
    let mut quantised_inputs: HashSet<String> = HashSet::new();
    let mut quantised_weights: HashSet<String> = HashSet::new();
    for it in std::mem::take(&mut graph.nodes) {
        let matrix = it.inputs.get(1).filter(|_| it.op_type == "MatMul").and_then(|name| matrices.get(name));
        let (Some(&index), [left, right], [output]) = (matrix, &it.inputs[..], &it.outputs[..]) else {
            nodes.push(it);
            continue;
        };
        let part = |of: &str, what: &str| format!("{of}/{what}");
        let (left_int, left_scale, left_zero) = (part(left, "int"), part(left, "scale"), part(left, "zero"));
        if quantised_inputs.insert(left.clone()) {
            nodes.push(Node {
                inputs: vec![left.clone()],
                outputs: vec![left_int.clone(), left_scale.clone(), left_zero.clone()],
                name: left_int.clone(),
                op_type: "DynamicQuantizeLinear".into(),
                ..Node::default()
            });
        }
        let (right_int, right_scale, right_zero) = (part(right, "int"), part(right, "scale"), part(right, "zero"));
        if quantised_weights.insert(right.clone()) {
            let (integers, scales) = columns(&graph.initializers[index])?;
            let count = scales.len() as i64;
            let dims = graph.initializers[index].dims.clone();
            weights.push(Tensor { dims, data_type: Tensor::I8, name: right_int.clone(), raw: integers });
            weights.push(Tensor::of_floats(right_scale.clone(), vec![count], &scales));
            let zeros = vec![0; scales.len()];
            weights.push(Tensor { dims: vec![count], data_type: Tensor::I8, name: right_zero.clone(), raw: zeros });
        }
        let (product, floats, scale) = (part(output, "product"), part(output, "floats"), part(output, "by"));
        let to = Attribute {
            name: "to".into(),
            kind: Attribute::INT,
            i: Some(i64::from(Tensor::F32)),
            ..Attribute::default()
        };
        nodes.push(node("Mul", &[&left_scale, &right_scale], &scale, Vec::new()));
        let factors = [left_int.as_str(), &right_int, &left_zero, &right_zero];
        nodes.push(node("MatMulInteger", &factors, &product, Vec::new()));
        nodes.push(node("Cast", &[&product], &floats, vec![to]));
        nodes.push(node("Mul", &[&floats, &scale], output, Vec::new()));
    }
    graph.nodes = nodes;
    graph.initializers.extend(weights);
    Ok(())
}

/// A matrix as integers, and the factor of each column.
fn columns(matrix: &Tensor) -> Result<(Vec<u8>, Vec<f32>), Fault> {
    let wrong = || Fault(format!("the weights {:?} have not the size they say", matrix.name));
    let values = matrix.floats().ok_or_else(wrong)?;
    let [rows, width] = matrix.dims[..] else { return Err(wrong()) };
    let (Ok(rows), Ok(width)) = (usize::try_from(rows), usize::try_from(width)) else { return Err(wrong()) };
    if width == 0 || values.len() != rows * width {
        return Err(wrong());
    }
    let mut scales = vec![0f32; width];
    for row in values.chunks_exact(width) {
        for (scale, value) in scales.iter_mut().zip(row) {
            *scale = scale.max(value.abs());
        }
    }
    for scale in &mut scales {
        *scale = if *scale == 0.0 { 1.0 } else { *scale / LARGEST };
    }
    let rounded = |(value, scale): (&f32, &f32)| {
        ((value / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8).cast_unsigned()
    };
    let integers = values.chunks_exact(width).flat_map(|row| row.iter().zip(&scales).map(rounded)).collect();
    Ok((integers, scales))
}

//! Computes once what the shipped files compute at every run: floats from 8-bit weights, and a transposed table.

use std::collections::HashMap;

use super::{
    Fault,
    graph::drop_unread,
    onnx::{Attribute, Graph, Node, Tensor},
};

/// Replaces nodes that read constants only by their result. Nodes must be in order.
///
/// Rows looked up in an expanded table are looked up in the 8-bit one and expanded then: the same floats for a quarter of
/// the bytes.
pub(crate) fn fold(graph: &mut Graph) -> Result<(), Fault> {
    let mut constants: HashMap<String, Tensor> =
        std::mem::take(&mut graph.initializers).into_iter().map(|it| (it.name.clone(), it)).collect();
    let mut expansions: HashMap<String, Expansion> = HashMap::new();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes) {
        let foldable = !node.inputs.is_empty() && node.inputs.iter().all(|it| constants.contains_key(it));
        let folded = if foldable { compute(&node, &constants)? } else { None };
        if let Some(mut result) = folded {
            let [output] = node.outputs.as_slice() else { return Err(Fault(format!("{} has two outputs", node.name))) };
            if let Some(expansion) = Expansion::of(&node, &expansions) {
                expansions.insert(output.clone(), expansion);
            }
            result.name.clone_from(output);
            constants.insert(output.clone(), result);
            continue;
        }
        match node.inputs.first().and_then(|it| expansions.get(it)) {
            Some(expansion) if node.op_type == "Gather" => nodes.extend(expansion.after(node)),
            _ => nodes.push(node),
        }
    }
    graph.nodes = nodes;
    graph.initializers = constants.into_values().collect();
    // A map's order differs from run to run; a file's must not.
    graph.initializers.sort_by(|a, b| a.name.cmp(&b.name));
    drop_unread(graph);
    Ok(())
}

/// None: not one of the operators folded here.
fn compute(node: &Node, constants: &HashMap<String, Tensor>) -> Result<Option<Tensor>, Fault> {
    let wrong = |what: &str| Fault(format!("{} ({}): {what}", node.name, node.op_type));
    let input = |index: usize| node.inputs.get(index).and_then(|it| constants.get(it)).ok_or_else(|| wrong("an input"));
    let first = input(0)?;
    match node.op_type.as_str() {
        "Cast" if first.data_type == Tensor::I8 => {
            let to = node.attribute("to").and_then(|it| it.i);
            if to != Some(i64::from(Tensor::F32)) {
                return Err(wrong("it makes no floats of 8-bit weights"));
            }
            let values: Vec<f32> = first.raw.iter().map(|it| f32::from(it.cast_signed())).collect();
            Ok(Some(Tensor::of_floats(String::new(), first.dims.clone(), &values)))
        }
        "Mul" | "Add" => {
            let (Some(mut values), Some(by)) = (first.floats(), input(1)?.floats()) else { return Ok(None) };
            let [by] = by[..] else { return Ok(None) };
            let apply = |it: &mut f32| if node.op_type == "Mul" { *it *= by } else { *it += by };
            values.iter_mut().for_each(apply);
            Ok(Some(Tensor::of_floats(String::new(), first.dims.clone(), &values)))
        }
        "Transpose" => {
            let perm = node.attribute("perm").map_or(&[1, 0][..], |it| it.ints.as_slice());
            let (Some(values), [rows, columns], [1, 0]) = (first.floats(), first.dims.as_slice(), perm) else {
                return Ok(None);
            };
            let (Ok(height), Ok(width)) = (usize::try_from(*rows), usize::try_from(*columns)) else { return Ok(None) };
            if values.len() != height * width {
                return Err(wrong("the table has not the size it says"));
            }
            let turned: Vec<f32> =
                (0..width).flat_map(|column| values.iter().skip(column).step_by(width).copied()).collect();
            Ok(Some(Tensor::of_floats(String::new(), vec![*columns, *rows], &turned)))
        }
        _ => Ok(None),
    }
}

/// How a table of floats was made from 8-bit integers.
#[derive(Clone)]
struct Expansion {
    integers: String,
    steps: Vec<Node>,
}

impl Expansion {
    fn of(node: &Node, known: &HashMap<String, Expansion>) -> Option<Self> {
        let before = match node.op_type.as_str() {
            "Cast" => Self { integers: node.inputs[0].clone(), steps: Vec::new() },
            "Mul" | "Add" => known.get(&node.inputs[0])?.clone(),
            _ => return None,
        };
        let steps = before.steps.into_iter().chain([node.clone()]).collect();
        Some(Self { integers: before.integers, steps })
    }

    /// The same steps, carried out on what was looked up.
    fn after(&self, mut gather: Node) -> Vec<Node> {
        let Some(result) = gather.outputs.first().cloned() else { return vec![gather] };
        let name = |index: usize| format!("{result}/expanded.{index}");
        gather.inputs[0].clone_from(&self.integers);
        gather.outputs[0] = name(0);
        let mut nodes = vec![gather];
        for (index, step) in self.steps.iter().enumerate() {
            let mut step = step.clone();
            step.inputs[0] = name(index);
            step.outputs[0] = if index + 1 == self.steps.len() { result.clone() } else { name(index + 1) };
            step.name = step.outputs[0].clone();
            nodes.push(step);
        }
        nodes
    }
}

/// A node with one output, named after it.
pub(crate) fn node(op_type: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> Node {
    Node {
        inputs: inputs.iter().map(|it| (*it).to_owned()).collect(),
        outputs: vec![output.to_owned()],
        name: output.to_owned(),
        op_type: op_type.to_owned(),
        attributes,
        domain: String::new(),
    }
}

//! Takes the decoder's two branches apart.
//!
//! The branch for later steps becomes the decoder: with no past tokens it is the first step, too. What the first step alone
//! computes, keys and values of the cross-attention from the encoder's output, goes to the end of the encoder.

use std::collections::HashSet;

use super::{
    Fault,
    fold::node,
    graph::{merge, rename, slice},
    onnx::{Attribute, Graph, Node, Tensor, ValueInfo},
};

/// Layers whose cross-attention follows the speech; word times are read from them.
pub(crate) const ALIGNED_LAYERS: [usize; 2] = [4, 5];

/// What the first step is given of the encoder, in the shipped decoder.
const HIDDEN: &str = "encoder_hidden_states";

/// The encoder with the keys and values, and the decoder without branches.
pub(crate) fn split(encoder: Graph, decoder: Graph) -> Result<(Graph, Graph), Fault> {
    let (first, later) = branches(decoder)?;
    let layers = later.outputs.iter().filter(|it| it.name.ends_with(".decoder.key")).count();
    if layers <= ALIGNED_LAYERS[1] {
        return Err(Fault(format!("the decoder has {layers} layers, too few to be the model this is made for")));
    }
    Ok((with_cross(encoder, first, layers)?, later_steps(later, layers)?))
}

/// The graph of the first step and that of later steps, each with the weights.
fn branches(mut decoder: Graph) -> Result<(Graph, Graph), Fault> {
    let missing = |what: &str| Fault(format!("the decoder has no {what}"));
    let at = decoder.nodes.iter().position(|it| it.op_type == "If").ok_or_else(|| missing("If node"))?;
    let mut choice = decoder.nodes.remove(at);
    let mut branch = |name: &str| -> Result<Graph, Fault> {
        let graph = choice.attributes.iter_mut().find(|it| it.name == name).and_then(|it| it.g.take());
        let mut graph = graph.ok_or_else(|| missing(name))?;
        if graph.outputs.len() != choice.outputs.len() {
            return Err(Fault(format!("the decoder's {name} has not the outputs of its If node")));
        }
        let names: Vec<String> = graph.outputs.iter().map(|it| it.name.clone()).collect();
        let renamed = |name: &str| {
            let at = names.iter().position(|it| it == name)?;
            (choice.outputs[at] != name).then(|| choice.outputs[at].clone())
        };
        rename(&mut graph, renamed);
        Ok(graph)
    };
    let (mut later, mut first) = (branch("then_branch")?, branch("else_branch")?);
    for graph in [&mut later, &mut first] {
        graph.inputs.clone_from(&decoder.inputs);
        merge(graph, decoder.clone());
    }
    Ok((first, later))
}

fn later_steps(mut graph: Graph, layers: usize) -> Result<Graph, Fault> {
    let mut outputs = vec![ValueInfo::floats("logits".into(), &["batch", "tokens", "vocabulary"])];
    for layer in 0..layers {
        for what in ["key", "value"] {
            let name = format!("present.{layer}.decoder.{what}");
            outputs.push(ValueInfo::floats(name, &["batch", "heads", "all_tokens", "width"]));
        }
    }
    for layer in ALIGNED_LAYERS {
        let made = output_of(&graph, &format!("/model/decoder/layers.{layer}/encoder_attn/Softmax"))?;
        let name = format!("xattn.{layer}");
        rename(&mut graph, |it| (it == made).then(|| name.clone()));
        outputs.push(ValueInfo::floats(name, &["batch", "heads", "tokens", "frames"]));
    }
    for layer in 0..layers {
        take_prepared_keys(&mut graph, layer)?;
    }
    let wanted: Vec<String> = outputs.iter().map(|it| it.name.clone()).collect();
    graph.outputs = outputs;
    let inputs = graph.inputs.iter().map(|it| it.name.clone()).collect();
    slice(&mut graph, &wanted, &inputs)?;
    Ok(graph)
}

/// Every step would turn and scale the same keys again; the encoder does it once.
fn take_prepared_keys(graph: &mut Graph, layer: usize) -> Result<(), Fault> {
    let attention = format!("/model/decoder/layers.{layer}/encoder_attn");
    let prepared = output_of(graph, &format!("{attention}/Mul_1"))?;
    let input = format!("past_key_values.{layer}.encoder.key");
    let product = graph.nodes.iter_mut().find(|it| it.name == format!("{attention}/MatMul"));
    let product = product.filter(|it| it.inputs.get(1) == Some(&prepared));
    let product = product.ok_or_else(|| Fault(format!("{attention} does not multiply queries with scaled keys")))?;
    product.inputs[1].clone_from(&input);
    for it in graph.inputs.iter_mut().filter(|it| it.name == input) {
        *it = ValueInfo::floats(input.clone(), &["batch", "heads", "width", "frames"]);
    }
    Ok(())
}

fn with_cross(mut encoder: Graph, mut first: Graph, layers: usize) -> Result<Graph, Fault> {
    // It reads the batch size only, but off the decoder's own values, which would drag in all of the decoder.
    for node in first.nodes.iter_mut().filter(|it| it.op_type == "Shape" && it.name.ends_with("/encoder_attn/Shape")) {
        node.inputs = vec![HIDDEN.into()];
    }
    let cross = |layer: usize, what: &str| format!("present.{layer}.encoder.{what}");
    let wanted: Vec<String> = (0..layers).flat_map(|layer| [cross(layer, "key"), cross(layer, "value")]).collect();
    slice(&mut first, &wanted, &HashSet::from([HIDDEN.to_owned()]))?;
    let hidden = encoder.outputs.first().ok_or_else(|| Fault("the encoder has no output".into()))?.name.clone();
    rename(&mut first, |it| Some(if it == HIDDEN { hidden.clone() } else { format!("cross/{it}") }));
    merge(&mut encoder, first);
    encoder.outputs.clear();
    for layer in 0..layers {
        let key = format!("cross.{layer}.key");
        prepare_keys(&mut encoder, &format!("cross/{}", cross(layer, "key")), &key);
        encoder.outputs.push(ValueInfo::floats(key, &["batch", "heads", "width", "frames"]));
        let value = format!("cross.{layer}.value");
        let made = format!("cross/{}", cross(layer, "value"));
        rename(&mut encoder, |it| (it == made).then(|| value.clone()));
        encoder.outputs.push(ValueInfo::floats(value, &["batch", "heads", "frames", "width"]));
    }
    let wanted: Vec<String> = encoder.outputs.iter().map(|it| it.name.clone()).collect();
    let inputs = encoder.inputs.iter().map(|it| it.name.clone()).collect();
    slice(&mut encoder, &wanted, &inputs)?;
    Ok(encoder)
}

/// Keys as columns, scaled as the decoder would: by the fourth root of the head's width.
fn prepare_keys(graph: &mut Graph, made: &str, output: &str) {
    let (scale, turned) = (format!("{output}/scale"), format!("{output}/turned"));
    let perm = Attribute { name: "perm".into(), kind: Attribute::INTS, ints: vec![0, 1, 3, 2], ..Attribute::default() };
    graph.nodes.push(node("Transpose", &[made], &turned, vec![perm]));
    graph.nodes.push(node("Mul", &[&turned, &scale], output, Vec::new()));
    graph.initializers.push(Tensor::of_floats(scale, vec![1], &[(1.0 / HEAD_WIDTH.sqrt()).sqrt()]));
}

const HEAD_WIDTH: f32 = 52.0;

fn output_of(graph: &Graph, name: &str) -> Result<String, Fault> {
    let named = |it: &&Node| it.name == name;
    let made = graph.nodes.iter().find(named).and_then(|it| it.outputs.first());
    made.cloned().ok_or_else(|| Fault(format!("it has no node {name:?}")))
}

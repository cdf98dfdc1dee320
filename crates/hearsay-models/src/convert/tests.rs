//! Conversion steps on graphs small enough to compute by hand.

use proptest::prelude::*;

use super::{
    fold::{fold, node},
    graph::slice,
    onnx::{Attribute, Graph, Node, Tensor, ValueInfo},
    ort_file,
    quantize::quantize,
};

fn int8(name: &str, dims: &[i64], values: &[i8]) -> Tensor {
    let raw = values.iter().map(|it| it.cast_unsigned()).collect();
    Tensor { dims: dims.to_vec(), data_type: Tensor::I8, name: name.into(), raw }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    Tensor::of_floats(name.into(), dims.to_vec(), values)
}

fn to_floats() -> Vec<Attribute> {
    vec![Attribute { name: "to".into(), kind: Attribute::INT, i: Some(1), ..Attribute::default() }]
}

fn ops(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|it| it.op_type.as_str()).collect()
}

fn values(graph: &Graph, name: &str) -> Vec<f32> {
    graph.initializers.iter().find(|it| it.name == name).unwrap().floats().unwrap()
}

/// Integers 1 to 6, expanded as half of each and a quarter more.
fn expanding(reader: Node) -> Graph {
    Graph {
        nodes: vec![
            node("Cast", &["table"], "cast", to_floats()),
            node("Mul", &["cast", "half"], "scaled", vec![]),
            node("Add", &["scaled", "quarter"], "expanded", vec![]),
            reader,
        ],
        initializers: vec![
            int8("table", &[2, 3], &[1, 2, 3, 4, 5, 6]),
            floats("half", &[1], &[0.5]),
            floats("quarter", &[1], &[0.25]),
        ],
        ..Graph::default()
    }
}

#[test]
fn weights_are_expanded_once() {
    let mut graph = expanding(node("MatMul", &["x", "expanded"], "y", vec![]));
    fold(&mut graph).unwrap();
    assert_eq!(ops(&graph), ["MatMul"]);
    assert_eq!(values(&graph, "expanded"), [0.75, 1.25, 1.75, 2.25, 2.75, 3.25]);
    assert_eq!(graph.initializers.len(), 1, "what is not read any more is dropped");
}

#[test]
fn a_table_is_turned_once() {
    let mut graph = expanding(node("Transpose", &["expanded"], "turned", vec![]));
    graph.nodes.push(node("MatMul", &["x", "turned"], "y", vec![]));
    fold(&mut graph).unwrap();
    assert_eq!(ops(&graph), ["MatMul"]);
    assert_eq!(values(&graph, "turned"), [0.75, 2.25, 1.25, 2.75, 1.75, 3.25]);
    assert_eq!(graph.initializers[0].dims, [3, 2]);
}

#[test]
fn rows_are_looked_up_before_they_are_expanded() {
    let mut graph = expanding(node("Gather", &["expanded", "ids"], "rows", vec![]));
    fold(&mut graph).unwrap();
    assert_eq!(ops(&graph), ["Gather", "Cast", "Mul", "Add"]);
    assert_eq!(graph.nodes[0].inputs, ["table", "ids"]);
    for (before, after) in graph.nodes.iter().zip(&graph.nodes[1..]) {
        assert_eq!(before.outputs[0], after.inputs[0]);
    }
    assert_eq!(graph.nodes[3].outputs, ["rows"]);
    assert_eq!(graph.nodes[2].inputs[1], "half");
}

#[test]
fn a_slice_is_in_order_and_stops_at_what_is_given() {
    let mut graph = Graph {
        nodes: vec![
            node("Add", &["b", "c"], "d", vec![]),
            node("Neg", &["unwanted"], "e", vec![]),
            node("Neg", &["a"], "b", vec![]),
            node("Neg", &["b"], "c", vec![]),
            node("Neg", &["before"], "a", vec![]),
        ],
        initializers: vec![floats("unread", &[1], &[1.0])],
        inputs: ["a", "unwanted"].map(|it| ValueInfo { name: it.into(), kind: None }).into(),
        ..Graph::default()
    };
    slice(&mut graph, &["d".into()], &["a".to_owned()].into()).unwrap();
    assert_eq!(graph.nodes.iter().map(|it| it.outputs[0].as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
    assert_eq!(graph.inputs.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(graph.initializers.is_empty());
    graph.nodes.push(node("Neg", &["d"], "a", vec![]));
    assert!(slice(&mut graph, &["d".into()], &[].into()).unwrap_err().0.contains("depends on itself"));
}

#[test]
fn products_run_on_seven_bits_per_column() {
    let mut graph = Graph {
        nodes: vec![
            node("MatMul", &["x", "w"], "y", vec![]),
            node("MatMul", &["x", "v"], "z", vec![]),
            node("MatMul", &["y", "z"], "dynamic", vec![]),
        ],
        initializers: vec![floats("w", &[2, 3], &[1.0, -0.5, 0.0, 0.5, 0.25, 0.0]), floats("v", &[2, 1], &[8.0, -8.0])],
        ..Graph::default()
    };
    quantize(&mut graph).unwrap();
    let product = ["Mul", "MatMulInteger", "Cast", "Mul"];
    let expected: Vec<&str> =
        ["DynamicQuantizeLinear"].into_iter().chain(product).chain(product).chain(["MatMul"]).collect();
    assert_eq!(ops(&graph), expected, "one input is quantised once");
    let weights = graph.initializers.iter().find(|it| it.name == "w/int").unwrap();
    assert_eq!(weights.raw.iter().map(|it| it.cast_signed()).collect::<Vec<_>>(), [64, -64, 0, 32, 32, 0]);
    assert_eq!(values(&graph, "w/scale"), [1.0 / 64.0, 0.5 / 64.0, 1.0]);
    assert_eq!(graph.nodes[4].outputs, ["y"]);
}

#[test]
fn what_is_no_model_is_refused() {
    assert!(ort_file::read(b"").is_err());
    assert!(ort_file::read(b"0000WRONG and more").unwrap_err().0.contains("ORTM"));
}

proptest! {
    /// Offsets that lead anywhere end in an error, not in a panic or a long walk.
    #[test]
    fn no_file_makes_the_reader_panic(mut bytes in prop::collection::vec(prop_oneof![4 => 0u8..32, 1 => 0u8..=255], 8..600)) {
        bytes[..8].copy_from_slice(b"\x08\0\0\0ORTM");
        let _ = ort_file::read(&bytes);
    }
}

//! Cutting graphs to what is needed, and renaming what is in them.

use std::collections::{HashMap, HashSet};

use super::{Fault, onnx::Graph};

/// Keeps the nodes that the wanted values need, each behind those it reads. `given` values are not looked behind.
pub(crate) fn slice(graph: &mut Graph, wanted: &[String], given: &HashSet<String>) -> Result<(), Fault> {
    let maker: HashMap<&str, usize> = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.outputs.iter().filter(|it| !it.is_empty()).map(move |it| (it.as_str(), index)))
        .collect();
    let mut state = vec![State::Unseen; graph.nodes.len()];
    let mut order = Vec::new();
    let mut stack: Vec<usize> = Vec::new();
    for name in wanted.iter().filter(|it| !given.contains(*it)) {
        stack.extend(maker.get(name.as_str()));
        while let Some(&index) = stack.last() {
            match state[index] {
                State::Done => {
                    stack.pop();
                }
                State::Open => {
                    state[index] = State::Done;
                    order.push(index);
                    stack.pop();
                }
                State::Unseen => {
                    state[index] = State::Open;
                    for input in graph.nodes[index].inputs.iter().filter(|it| !given.contains(*it)) {
                        let Some(&before) = maker.get(input.as_str()) else { continue };
                        match state[before] {
                            State::Unseen => stack.push(before),
                            State::Open => return Err(Fault(format!("the value {input:?} depends on itself"))),
                            State::Done => {}
                        }
                    }
                }
            }
        }
    }
    let mut nodes: Vec<_> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
    drop_unread(graph);
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Unseen,
    Open,
    Done,
}

/// Forgets initializers and inputs that no node reads.
pub(crate) fn drop_unread(graph: &mut Graph) {
    let read: HashSet<&str> = graph.nodes.iter().flat_map(|it| it.inputs.iter().map(String::as_str)).collect();
    graph.initializers.retain(|it| read.contains(it.name.as_str()));
    graph.inputs.retain(|it| read.contains(it.name.as_str()));
}

/// Gives every value and node another name.
pub(crate) fn rename(graph: &mut Graph, name: impl Fn(&str) -> Option<String>) {
    let apply = |it: &mut String| {
        if !it.is_empty()
            && let Some(new) = name(it)
        {
            *it = new;
        }
    };
    for node in &mut graph.nodes {
        node.inputs.iter_mut().chain(&mut node.outputs).for_each(apply);
    }
    graph.initializers.iter_mut().for_each(|it| apply(&mut it.name));
    graph.inputs.iter_mut().chain(&mut graph.outputs).for_each(|it| apply(&mut it.name));
}

/// Puts the nodes and initializers of one graph into another.
pub(crate) fn merge(into: &mut Graph, from: Graph) {
    into.nodes.extend(from.nodes);
    into.initializers.extend(from.initializers);
}

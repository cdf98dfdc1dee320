//! Makes the speech model's shipped files into the ones the engine runs.
//!
//! Shipped: an encoder, and a decoder whose two branches (first step, later steps) are chosen by an `If`; weights as
//! 8-bit integers that every run expands to floats. Made of it: two files without `If` whose matrix products run on 8-bit
//! integers. The encoder ends in what the decoder's cross-attention needs of it, computed once per utterance; the decoder
//! takes any number of tokens with any number of past ones, and gives the cross-attention that word times are read from.
//!
//! Pure: bytes in, bytes out, the same bytes on every machine.

mod fold;
mod graph;
mod growing;
pub(crate) mod minilm;
mod onnx;
mod ort_file;
mod quantize;
mod split;
#[cfg(test)]
mod tests;
pub(crate) mod whisper;

use prost::Message as _;

use self::onnx::{Graph, Model, Opset};

/// Changes whenever the same package would be made into other files.
pub(crate) const REVISION: u32 = 1;

/// Why a model cannot be converted; says what is wrong with the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub String);

/// The converted files.
pub(crate) struct Converted {
    pub encoder: Vec<u8>,
    pub decoder: Vec<u8>,
}

/// `step` is called before each step with how many are done.
pub(crate) fn moonshine(encoder: &[u8], decoder: &[u8], mut step: impl FnMut(u64)) -> Result<Converted, Fault> {
    step(0);
    let encoder = ort_file::read(encoder).map_err(|it| it.within("encoder"))?;
    let decoder = ort_file::read(decoder).map_err(|it| it.within("decoder"))?;
    let opset = encoder.opset.iter().find(|it| it.domain.is_empty()).map(|it| it.version);
    let opset = opset.ok_or_else(|| Fault("the encoder does not say which operators it uses".into()))?;
    step(1);
    let (encoder, decoder) = split::split(graph_of(encoder)?, graph_of(decoder)?)?;
    let mut finish = |mut graph: Graph, done| {
        step(done);
        fold::fold(&mut graph)?;
        step(done + 1);
        quantize::quantize(&mut graph)?;
        graph::drop_unread(&mut graph);
        Ok::<_, Fault>(encode(graph, opset))
    };
    Ok(Converted { encoder: finish(encoder, 2)?, decoder: finish(decoder, 4)? })
}

/// What [`moonshine`] counts to.
pub(crate) const STEPS: u64 = 6;

fn graph_of(model: Model) -> Result<Graph, Fault> {
    model.graph.ok_or_else(|| Fault("it has no graph".into()))
}

fn encode(graph: Graph, opset: i64) -> Vec<u8> {
    encode_as(graph, "moonshine", opset)
}

fn encode_as(mut graph: Graph, name: &str, opset: i64) -> Vec<u8> {
    name.clone_into(&mut graph.name);
    let opset = vec![Opset { domain: String::new(), version: opset }];
    Model { ir_version: 8, producer: "hearsay".into(), graph: Some(graph), opset }.encode_to_vec()
}

impl Fault {
    fn within(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

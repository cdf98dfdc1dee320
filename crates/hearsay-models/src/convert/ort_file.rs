//! Reads ONNX Runtime's own file format, a FlatBuffer, into ONNX messages.
//!
//! Every offset in the file is checked before it is followed; a wrong one is an error, never a panic or an endless walk.

use super::{
    Fault,
    onnx::{Attribute, Dim, Graph, Model, Node, Opset, Shape, Tensor, TensorType, Type, ValueInfo},
};

/// Graphs within graphs; the decoder has one level.
const MAX_DEPTH: usize = 4;

/// Reads a whole `.ort` file. Its graph may list nodes in any order.
pub(crate) fn read(file: &[u8]) -> Result<Model, Fault> {
    if file.get(4..8) != Some(b"ORTM") {
        return Err(Fault("it is not an ONNX Runtime model (no ORTM mark)".into()));
    }
    let root = Table::at(file, indirect(file, 0)?)?;
    let model = root.table(1)?.ok_or_else(|| missing("model"))?;
    let graph = model.table(7)?.ok_or_else(|| missing("graph"))?;
    Ok(Model {
        ir_version: model.i64(0)?,
        producer: String::new(),
        graph: Some(read_graph(&graph, 0)?),
        opset: model
            .tables(1)?
            .iter()
            .map(|it| Ok(Opset { domain: it.string(0)?, version: it.i64(1)? }))
            .collect::<Result<_, Fault>>()?,
    })
}

fn read_graph(table: &Table<'_>, depth: usize) -> Result<Graph, Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault("its graphs are nested too deeply".into()));
    }
    let args: Vec<ValueInfo> = table.tables(1)?.iter().map(read_value_info).collect::<Result<_, _>>()?;
    let infos = |names: Vec<String>| {
        let known = |name: &String| args.iter().find(|it| it.name == *name).cloned();
        names.into_iter().map(|name| known(&name).unwrap_or(ValueInfo { name, kind: None })).collect::<Vec<ValueInfo>>()
    };
    Ok(Graph {
        nodes: table.tables(2)?.iter().map(|it| read_node(it, depth)).collect::<Result<_, _>>()?,
        name: String::new(),
        initializers: table.tables(0)?.iter().map(read_tensor).collect::<Result<_, _>>()?,
        inputs: infos(table.strings(5)?),
        outputs: infos(table.strings(6)?),
    })
}

fn read_node(table: &Table<'_>, depth: usize) -> Result<Node, Fault> {
    Ok(Node {
        name: table.string(0)?,
        domain: table.string(2)?,
        op_type: table.string(5)?,
        inputs: table.strings(8)?,
        outputs: table.strings(9)?,
        attributes: table.tables(10)?.iter().map(|it| read_attribute(it, depth)).collect::<Result<_, _>>()?,
    })
}

fn read_attribute(table: &Table<'_>, depth: usize) -> Result<Attribute, Fault> {
    let mut it = Attribute { name: table.string(0)?, kind: table.i32(2)?, ..Attribute::default() };
    match it.kind {
        Attribute::FLOAT => it.f = Some(f32::from_bits(table.i32(3)? as u32)),
        Attribute::INT => it.i = Some(table.i64(4)?),
        Attribute::STRING => it.s = Some(table.string(5)?.into_bytes()),
        Attribute::TENSOR => {
            it.t = Some(read_tensor(&table.table(6)?.ok_or_else(|| missing("attribute's tensor"))?)?);
        }
        Attribute::GRAPH => {
            it.g = Some(read_graph(&table.table(7)?.ok_or_else(|| missing("attribute's graph"))?, depth + 1)?);
        }
        Attribute::FLOATS => it.floats = table.vector::<4>(8)?.iter().map(|it| f32::from_le_bytes(*it)).collect(),
        Attribute::INTS => it.ints = table.vector::<8>(9)?.iter().map(|it| i64::from_le_bytes(*it)).collect(),
        Attribute::STRINGS => it.strings = table.strings(10)?.into_iter().map(String::into_bytes).collect(),
        other => return Err(Fault(format!("attribute {:?} is of kind {other}, which no node here needs", it.name))),
    }
    Ok(it)
}

fn read_tensor(table: &Table<'_>) -> Result<Tensor, Fault> {
    Ok(Tensor {
        name: table.string(0)?,
        dims: table.vector::<8>(2)?.iter().map(|it| i64::from_le_bytes(*it)).collect(),
        data_type: table.i32(3)?,
        raw: table.vector::<1>(4)?.as_flattened().to_vec(),
    })
}

fn read_value_info(table: &Table<'_>) -> Result<ValueInfo, Fault> {
    const TENSOR: u8 = 1;
    const VALUE: u8 = 1;
    const PARAM: u8 = 2;
    let name = table.string(0)?;
    let Some(kind) = table.table(2)? else { return Ok(ValueInfo { name, kind: None }) };
    if kind.u8(1)? != TENSOR {
        return Ok(ValueInfo { name, kind: None });
    }
    let tensor = kind.table(2)?.ok_or_else(|| missing("type"))?;
    let shape = match tensor.table(1)? {
        None => None,
        Some(shape) => {
            let mut dims = Vec::new();
            for dim in shape.tables(0)? {
                let mut it = Dim { value: None, param: None };
                if let Some(value) = dim.table(0)? {
                    match value.u8(0)? {
                        VALUE => it.value = Some(value.i64(1)?),
                        PARAM => it.param = Some(value.string(2)?),
                        _ => {}
                    }
                }
                dims.push(it);
            }
            Some(Shape { dims })
        }
    };
    Ok(ValueInfo { name, kind: Some(Type { tensor: Some(TensorType { elem: tensor.i32(0)?, shape }) }) })
}

fn missing(what: &str) -> Fault {
    Fault(format!("its {what} is missing"))
}

/// One FlatBuffer table: a place in the file, and where its fields are.
struct Table<'a> {
    file: &'a [u8],
    place: usize,
    /// Offset of each field from `place`; 0: absent.
    fields: &'a [[u8; 2]],
}

impl<'a> Table<'a> {
    fn at(file: &'a [u8], place: usize) -> Result<Self, Fault> {
        let back = i32::from_le_bytes(fixed(file, place)?);
        let vtable = i64::try_from(place).ok().and_then(|it| usize::try_from(it - i64::from(back)).ok());
        let vtable = vtable.ok_or_else(|| outside(place))?;
        let size = usize::from(u16::from_le_bytes(fixed(file, vtable)?));
        let bytes =
            vtable.checked_add(size).and_then(|end| file.get(vtable + 4..end)).ok_or_else(|| outside(vtable))?;
        Ok(Self { file, place, fields: bytes.as_chunks().0 })
    }

    /// None: the field has its default.
    fn field(&self, id: usize) -> Option<usize> {
        let offset = u16::from_le_bytes(*self.fields.get(id)?);
        (offset != 0).then(|| self.place + usize::from(offset))
    }

    fn scalar<const N: usize>(&self, id: usize) -> Result<[u8; N], Fault> {
        self.field(id).map_or(Ok([0; N]), |at| fixed(self.file, at))
    }

    fn u8(&self, id: usize) -> Result<u8, Fault> {
        Ok(self.scalar::<1>(id)?[0])
    }

    fn i32(&self, id: usize) -> Result<i32, Fault> {
        self.scalar(id).map(i32::from_le_bytes)
    }

    fn i64(&self, id: usize) -> Result<i64, Fault> {
        self.scalar(id).map(i64::from_le_bytes)
    }

    fn table(&self, id: usize) -> Result<Option<Table<'a>>, Fault> {
        self.field(id).map(|at| Table::at(self.file, indirect(self.file, at)?)).transpose()
    }

    /// Absent: empty.
    fn string(&self, id: usize) -> Result<String, Fault> {
        self.field(id).map_or(Ok(String::new()), |at| string(self.file, at))
    }

    fn vector<const N: usize>(&self, id: usize) -> Result<&'a [[u8; N]], Fault> {
        let Some(at) = self.field(id) else { return Ok(&[]) };
        let (_, bytes) = counted(self.file, at, N)?;
        Ok(bytes.as_chunks().0)
    }

    fn strings(&self, id: usize) -> Result<Vec<String>, Fault> {
        self.each(id, |at| string(self.file, at))
    }

    fn tables(&self, id: usize) -> Result<Vec<Table<'a>>, Fault> {
        self.each(id, |at| Table::at(self.file, indirect(self.file, at)?))
    }

    fn each<T>(&self, id: usize, read: impl Fn(usize) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let Some(at) = self.field(id) else { return Ok(Vec::new()) };
        let (start, bytes) = counted(self.file, at, 4)?;
        (0..bytes.len() / 4).map(|index| read(start + 4 * index)).collect()
    }
}

fn string(file: &[u8], at: usize) -> Result<String, Fault> {
    let (start, bytes) = counted(file, at, 1)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Fault(format!("the text at byte {start} is not UTF-8")))
}

/// The elements of the vector that the offset at `at` points to, and where they begin.
fn counted(file: &[u8], at: usize, width: usize) -> Result<(usize, &[u8]), Fault> {
    let place = indirect(file, at)?;
    let count = u32::from_le_bytes(fixed(file, place)?) as usize;
    let start = place + 4;
    let bytes = count.checked_mul(width).and_then(|it| file.get(start..start.checked_add(it)?));
    Ok((start, bytes.ok_or_else(|| outside(place))?))
}

/// Offsets only ever point forward, so following them ends.
fn indirect(file: &[u8], at: usize) -> Result<usize, Fault> {
    match u32::from_le_bytes(fixed(file, at)?) {
        0 => Err(outside(at)),
        offset => at.checked_add(offset as usize).ok_or_else(|| outside(at)),
    }
}

fn fixed<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N], Fault> {
    file.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(|| outside(at))
}

fn outside(at: usize) -> Fault {
    Fault(format!("it is damaged: the offset at byte {at} leads out of the file"))
}

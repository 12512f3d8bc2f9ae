//! The tree of functions: byte code, native, viper and assembler code, with what stands before it.

use super::{DEPTH_MAX, Instruction, MpyError, opcode, reader::Reader};

/// What a function's code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte code.
    Bytecode,
    /// `@micropython.native`
    Native,
    /// `@micropython.viper`, or a module written in C.
    Viper,
    /// `@micropython.asm_…`
    Asm,
}

/// The description that stands before byte code (and, for native code, behind it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelude<'a> {
    /// Slots for locals and the stack.
    pub state: usize,
    /// Nested `try` and `with`.
    pub exception_stack: usize,
    /// Bit 0: a generator; 1: `*args`; 2: `**kwargs`; 3: has default keyword-only arguments.
    pub flags: usize,
    /// Positional arguments.
    pub positional: usize,
    /// Keyword-only arguments.
    pub keyword_only: usize,
    /// Positional arguments that have defaults.
    pub defaults: usize,
    /// The function's name, then those of its arguments: numbers of qstrs.
    pub names: Vec<usize>,
    /// The table of lines, undecoded: see [`Prelude::line`].
    pub line_info: &'a [u8],
    /// Locals that inner functions share.
    pub cells: &'a [u8],
    /// Where byte code begins in [`Code::data`].
    pub start: usize,
}

/// One function, or the module's own code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code<'a> {
    /// What it is.
    pub kind: Kind,
    /// The code with its prelude.
    pub data: &'a [u8],
    /// Its prelude; viper and assembler code has none.
    pub prelude: Option<Prelude<'a>>,
    /// The functions inside it.
    pub children: Vec<Self>,
}

impl<'a> Code<'a> {
    /// This function and all in it, outer ones first; each with its place: the numbers of the
    /// functions on the way to it, counted from 0 in each.
    pub fn walk(&self) -> Vec<(Vec<usize>, &Self)> {
        let mut found = Vec::new();
        self.walk_into(&[], &mut found);
        found
    }

    fn walk_into<'c>(&'c self, path: &[usize], found: &mut Vec<(Vec<usize>, &'c Self)>) {
        found.push((path.to_vec(), self));
        for (number, child) in self.children.iter().enumerate() {
            child.walk_into(&[path, &[number]].concat(), found);
        }
    }

    /// The byte code without its prelude; empty for other kinds.
    pub fn bytecode(&self) -> &'a [u8] {
        match (&self.prelude, self.kind) {
            (Some(prelude), Kind::Bytecode) => self.data.get(prelude.start..).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl Code<'_> {
    /// The byte code's instructions; none for other kinds.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction> {
        // Parsing has seen that all of them decode.
        opcode::decode(self.bytecode()).map_while(Result::ok)
    }
}

impl Prelude<'_> {
    /// The line of the instruction at this offset in the byte code, as a traceback would show it:
    /// 1 where lines were left out (`mp_bytecode_get_source_line`).
    pub fn line(&self, offset: usize) -> usize {
        let mut line = 1;
        let mut left = offset;
        for (bytes, lines) in self.line_steps() {
            if left < bytes {
                break;
            }
            left -= bytes;
            line += lines;
        }
        line
    }

    /// The table of lines: so many bytes of code, then so many lines further.
    pub fn line_steps(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut rest = self.line_info;
        std::iter::from_fn(move || match rest {
            [] => None,
            [long, low, after @ ..] if long & 0x80 != 0 => {
                rest = after;
                let lines = (usize::from(*long) << 4) & 0x700 | usize::from(*low);
                Some((usize::from(long & 0xf), lines))
            }
            [short, after @ ..] => {
                rest = after;
                Some((usize::from(short & 0x1f), usize::from(short >> 5)))
            }
        })
    }

    /// Whether the lines are there: not left out by `-O3` or `-X no-source-lines`.
    pub fn has_lines(&self) -> bool {
        self.line_steps().any(|(_, lines)| lines > 0)
    }
}

const FLAG_RELOCATE: usize = 0x10;
const FLAG_RODATA: usize = 0x20;
const FLAG_BSS: usize = 0x40;

/// The next raw code, checked: its byte code decodes, and its numbers are those of texts, constants
/// and functions that are there.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    qstrs: &[&[u8]],
    objects: usize,
    depth: usize,
) -> Result<Code<'a>, MpyError> {
    if depth > DEPTH_MAX {
        return Err(reader.damaged("functions are nested without end"));
    }
    let kind_length = reader.varuint()?;
    let kind = match kind_length & 3 {
        0 => Kind::Bytecode,
        1 => Kind::Native,
        2 => Kind::Viper,
        _ => Kind::Asm,
    };
    let data = reader.take(kind_length >> 3)?;
    let mut flags = 0;
    let prelude = match kind {
        Kind::Bytecode => Some(prelude(data, 0, qstrs.len())),
        Kind::Native => {
            let offset = reader.varuint()?;
            Some(prelude(data, offset, qstrs.len()))
        }
        Kind::Viper | Kind::Asm => {
            flags = reader.varuint()?;
            None
        }
    };
    let prelude = match prelude {
        None => None,
        Some(None) => return Err(reader.damaged("a function's description leads out of it")),
        Some(Some(prelude)) => Some(prelude),
    };
    if kind == Kind::Asm {
        reader.varuint()?; // arguments
        reader.varuint()?; // their types
    }
    if kind == Kind::Viper {
        let rodata = if flags & FLAG_RODATA == 0 {
            0
        } else {
            reader.varuint()?
        };
        if flags & FLAG_BSS != 0 {
            reader.varuint()?;
        }
        reader.take(rodata)?;
    }
    let mut children = Vec::new();
    if kind_length & 4 != 0 {
        let count = reader.varuint()?;
        if count > reader.left() {
            return Err(reader.damaged("it is cut off"));
        }
        for _ in 0..count {
            children.push(read(reader, qstrs, objects, depth + 1)?);
        }
    }
    if flags & FLAG_RELOCATE != 0 {
        relocations(reader)?;
    }
    let code = Code {
        kind,
        data,
        prelude,
        children,
    };
    for instruction in opcode::decode(code.bytecode()) {
        let instruction = instruction.map_err(|why| reader.damaged(why))?;
        let known = match instruction.reference() {
            opcode::Reference::Qstr(number) => number < qstrs.len(),
            opcode::Reference::Object(number) => number < objects,
            opcode::Reference::Child(number) => number < code.children.len(),
            opcode::Reference::None => true,
        };
        if !known {
            return Err(reader.damaged("byte code names a constant that is not there"));
        }
    }
    Ok(code)
}

/// Passes over what `mp_native_relocate` reads.
fn relocations(reader: &mut Reader<'_>) -> Result<(), MpyError> {
    loop {
        let op = reader.byte()?;
        if op == 0xff {
            return Ok(());
        }
        if op & 1 != 0 {
            reader.varuint()?;
        }
        let op = op >> 1;
        if op <= 5 && op & 1 != 0 {
            reader.varuint()?;
        }
    }
}

/// `MP_BC_PRELUDE_SIG_DECODE` and `MP_BC_PRELUDE_SIZE_DECODE`.
fn prelude(data: &[u8], offset: usize, qstrs: usize) -> Option<Prelude<'_>> {
    let mut at = offset;
    let mut next = || {
        let byte = *data.get(at)?;
        at += 1;
        Some(usize::from(byte))
    };
    let mut z = next()?;
    let mut state = (z >> 3) & 0xf;
    let mut exception_stack = (z >> 2) & 1;
    let mut positional = z & 3;
    let (mut flags, mut keyword_only, mut defaults) = (0, 0, 0);
    let mut n = 0;
    while z & 0x80 != 0 {
        if n > 12 {
            return None; // no function has so many arguments
        }
        z = next()?;
        state |= (z & 0x30) << (2 * n);
        exception_stack |= (z & 0x02) << n;
        flags |= ((z & 0x40) >> 6) << n;
        positional |= (z & 0x4) << n;
        keyword_only |= ((z & 0x08) >> 3) << n;
        defaults |= (z & 1) << n;
        n += 1;
    }
    let (mut info, mut cells) = (0, 0);
    for n in 0.. {
        if n > 6 {
            return None;
        }
        let z = next()?;
        cells |= (z & 1) << n;
        info |= ((z & 0x7e) >> 1) << (6 * n);
        if z & 0x80 == 0 {
            break;
        }
    }
    let source_info = data.get(at..at.checked_add(info)?)?;
    let mut rest = source_info;
    let mut names = Vec::new();
    for _ in 0..1 + positional + keyword_only {
        let (name, after) = pytheas_release::board::varuint(rest)?;
        if name >= qstrs {
            return None;
        }
        names.push(name);
        rest = after;
    }
    let cells_at = at + info;
    let start = cells_at.checked_add(cells)?;
    Some(Prelude {
        state: state + 1,
        exception_stack,
        flags,
        positional,
        keyword_only,
        defaults,
        names,
        line_info: rest,
        cells: data.get(cells_at..start)?,
        start,
    })
}

//! `.mpy` files of format 6 (MicroPython 1.19 to 1.29): header, tables, code, imports and lines.
//!
//! ```text
//! 4d                     `M`
//! 06                     version
//! feature byte           bits 0–1 sub-version, 2–5 and 7 architecture, 6: flags of the architecture follow
//! small-int bits         the board's small integers must have at least as many
//! [architecture flags]   varuint (since 1.26)
//! qstrs, objects         two varuints: how many
//! qstr …                 varuint: bit 0 set: number of a static one; else length · 2, text, NUL
//! object …               kind, then length, bytes, NUL for text; a tuple's elements follow it
//! raw code               varuint: length · 8, has children (4), kind (0 byte code, 1 native, 2 viper, 3 asm);
//!                        the code; how many children; the children
//! ```
//! Varuints are most significant first. Sources: `py/persistentcode.c`, `py/bc.h` and `py/bc0.h` of 1.25;
//! the parser is compared with `tools/mpy-tool.py` over MicroPython's own test suite.
//!
//! Nothing in a file makes the parser panic or take more memory than a small multiple of the file.
//!
//! ```no_run
//! # let bytes: Vec<u8> = Vec::new();
//! let module = pytheas_board::mpy::Mpy::parse(&bytes)?;
//! for import in module.imports().found {
//!     println!("line {:?}: {}{}", import.line, ".".repeat(import.level), import.module);
//! }
//! # Ok::<(), pytheas_board::mpy::MpyError>(())
//! ```

mod arch;
mod board;
mod code;
mod imports;
mod lines;
mod opcode;
mod qstrs;
mod reader;

pub use arch::Arch;
pub use board::{BoardMpy, Incompatible};
pub use code::{Code, Kind, Prelude};
pub use imports::{Import, Imports, Unresolved};
pub use lines::{FunctionLines, LineMap, LineMapError, map_traceback};
pub use opcode::Instruction;

use miette::Diagnostic;

use reader::Reader;

/// The format's version this room reads: that of MicroPython 1.19 and later.
pub const VERSION: u8 = 6;

/// Tuples in tuples and functions in functions, at most.
const DEPTH_MAX: usize = 64;

/// The first bytes of a file: what a board must have to load it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: u8,
    /// Version of the native interface; counts only when there is native code.
    pub sub_version: u8,
    /// Whose native code is inside; none for byte code alone.
    pub arch: Option<Arch>,
    /// Extensions of the architecture that the native code uses, such as RISC-V's Zba (bit 0).
    pub arch_flags: usize,
    /// Bits that a small integer of the board must have.
    pub small_int_bits: u8,
}

/// A constant that byte code refers to. Text is UTF-8 but for lone surrogates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Const<'a> {
    /// The table of runtime functions, for native code.
    FunctionTable,
    /// `None`
    None,
    /// `False`
    False,
    /// `True`
    True,
    /// `...`
    Ellipsis,
    /// A `str`.
    Str(&'a [u8]),
    /// A `bytes`.
    Bytes(&'a [u8]),
    /// A large `int`, in decimal digits.
    Int(&'a [u8]),
    /// A `float`, in decimal.
    Float(&'a [u8]),
    /// A `complex`, in decimal.
    Complex(&'a [u8]),
    /// A `tuple`.
    Tuple(Vec<Self>),
}

/// A parsed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpy<'a> {
    /// What a board must have.
    pub header: Header,
    /// Interned texts: names, and short strings; the first is the source file's name.
    pub qstrs: Vec<&'a [u8]>,
    /// Other constants.
    pub objects: Vec<Const<'a>>,
    /// The module's own code, with the functions in it.
    pub root: Code<'a>,
}

/// A file that is no `.mpy` of this format, or a damaged one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
pub enum MpyError {
    /// Something else.
    #[error("no .mpy file: it does not begin with `M` and a version")]
    #[diagnostic(
        code(pytheas::board::not_mpy),
        help("compile the module's source with mpy-cross, or ship the source itself")
    )]
    NotMpy,
    /// Another version of the format.
    #[error(
        "the .mpy file has format version {version}, MicroPython 1.19 and later read {VERSION}"
    )]
    #[diagnostic(
        code(pytheas::board::mpy_version),
        help("compile its source again with mpy-cross of MicroPython 1.19 or later")
    )]
    Version {
        /// What the file says.
        version: u8,
    },
    /// Cut off or changed.
    #[error("damaged .mpy file: {why}, at byte {at}")]
    #[diagnostic(
        code(pytheas::board::mpy_damaged),
        help("compile the module's source again with mpy-cross")
    )]
    Damaged {
        /// What is wrong.
        why: &'static str,
        /// Where.
        at: usize,
    },
}

impl Header {
    /// The header at the start of `bytes`.
    ///
    /// # Errors
    /// [`MpyError`]; versions other than 6 among them.
    pub fn parse(bytes: &[u8]) -> Result<Self, MpyError> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, MpyError> {
        let Ok(&[b'M', version, feature, small_int_bits]) = reader.take(4) else {
            return Err(MpyError::NotMpy);
        };
        if version != VERSION {
            return Err(MpyError::Version { version });
        }
        let arch = Arch::from_number((feature >> 2) & 0x2f)
            .ok_or_else(|| reader.damaged("its architecture is none that is known"))?;
        let arch_flags = if feature & 0x40 == 0 {
            0
        } else {
            reader.varuint()?
        };
        Ok(Self {
            version,
            sub_version: feature & 3,
            arch,
            arch_flags,
            small_int_bits,
        })
    }
}

impl<'a> Mpy<'a> {
    /// Parses a file. Bytes behind its end are passed over, as boards do.
    ///
    /// # Errors
    /// [`MpyError`] at the first thing that is not as it should be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MpyError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        let (qstr_count, object_count) = (reader.varuint()?, reader.varuint()?);
        // Each takes a byte at least: a count beyond that is no reason to take memory.
        if qstr_count.saturating_add(object_count) > reader.left() {
            return Err(reader.damaged("it is cut off"));
        }
        let mut qstrs = Vec::new();
        for _ in 0..qstr_count {
            qstrs.push(qstrs::read(&mut reader)?);
        }
        let mut objects = Vec::new();
        for _ in 0..object_count {
            objects.push(object(&mut reader, 0)?);
        }
        if qstrs.is_empty() {
            return Err(reader.damaged("it does not name its source file"));
        }
        let root = code::read(&mut reader, &qstrs, objects.len(), 0)?;
        Ok(Self {
            header,
            qstrs,
            objects,
            root,
        })
    }

    /// The source file's name, as tracebacks show it.
    pub fn source_file(&self) -> String {
        self.text(0)
    }

    /// Whether any function is native code; a module may be marked for an architecture without.
    pub fn has_native(&self) -> bool {
        self.root
            .walk()
            .iter()
            .any(|(_, code)| code.kind != Kind::Bytecode)
    }

    /// The qstr of this number, with what is not UTF-8 replaced.
    pub fn text(&self, qstr: usize) -> String {
        let bytes = self.qstrs.get(qstr).copied().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn object<'a>(reader: &mut Reader<'a>, depth: usize) -> Result<Const<'a>, MpyError> {
    let kind = reader.byte()?;
    Ok(match kind {
        0 => Const::FunctionTable,
        1 => Const::None,
        2 => Const::False,
        3 => Const::True,
        4 => Const::Ellipsis,
        5..=9 => {
            let length = reader.varuint()?;
            let bytes = reader.take(length)?;
            if kind <= 6 {
                reader.nul()?;
            }
            match kind {
                5 => Const::Str(bytes),
                6 => Const::Bytes(bytes),
                7 => Const::Int(bytes),
                8 => Const::Float(bytes),
                _ => Const::Complex(bytes),
            }
        }
        10 => {
            let length = reader.varuint()?;
            if depth >= DEPTH_MAX || length > reader.left() {
                return Err(reader.damaged("a tuple is larger than the file"));
            }
            let mut items = Vec::new();
            for _ in 0..length {
                items.push(object(reader, depth + 1)?);
            }
            Const::Tuple(items)
        }
        _ => return Err(reader.damaged("an object has a kind that is not known")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `import a.b` and `def f(): from . import c`, compiled by mpy-cross 1.29 with `-O0`.
    pub(super) const SAMPLE: &[u8] = include_bytes!("mpy/sample.mpy");

    #[test]
    fn header_imports_and_functions_of_a_real_file() {
        let mpy = Mpy::parse(SAMPLE).unwrap();
        assert_eq!(mpy.header.arch, None);
        assert_eq!(mpy.source_file(), "sample.py");
        assert!(!mpy.has_native());
        let imports = mpy.imports();
        let found: Vec<_> = imports
            .found
            .iter()
            .map(|import| {
                let Import {
                    module,
                    level,
                    names,
                    function,
                    line,
                    ..
                } = import;
                format!(
                    "{function}:{} {level} {module} {names:?}",
                    line.unwrap_or(0)
                )
            })
            .collect();
        assert_eq!(found, [r#"<module>:1 0 a.b []"#, r#"f:3 1  ["c"]"#]);
    }

    #[test]
    fn what_is_no_mpy_says_what_it_is() {
        insta::assert_snapshot!(Mpy::parse(b"print(1)").unwrap_err(), @"no .mpy file: it does not begin with `M` and a version");
        insta::assert_snapshot!(Mpy::parse(b"M\x05\x02\x1f ").unwrap_err(), @"the .mpy file has format version 5, MicroPython 1.19 and later read 6");
        insta::assert_snapshot!(Mpy::parse(&SAMPLE[..SAMPLE.len() - 1]).unwrap_err(), @"damaged .mpy file: it is cut off, at byte 54");
    }

    #[test]
    fn counts_beyond_the_file_take_no_memory() {
        let huge = [&SAMPLE[..4], &[0x8f, 0xff, 0xff, 0xff, 0x7f, 0][..]].concat();
        assert!(Mpy::parse(&huge).is_err());
    }

    #[test]
    fn a_module_written_in_c_is_read_to_its_end() {
        // MicroPython's examples/natmod/features2, linked for x64 by tools/mpy_ld.py.
        let mpy = Mpy::parse(include_bytes!("mpy/features2.mpy")).unwrap();
        assert_eq!(mpy.header.arch, Some(Arch::X64));
        let kinds: Vec<_> = mpy.root.walk().iter().map(|(_, code)| code.kind).collect();
        assert!(kinds.contains(&Kind::Viper), "{kinds:?}");
        assert!(
            mpy.imports()
                .unresolved
                .iter()
                .all(|unresolved| unresolved.native)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, at: prop::sample::Index, to: u8) {
            let _ = Mpy::parse(&[&SAMPLE[..4], &bytes].concat());
            let mut changed = SAMPLE.to_vec();
            let at = at.index(changed.len());
            changed[at] = to;
            if let Ok(mpy) = Mpy::parse(&changed) {
                let _ = (mpy.imports(), LineMap::of(&mpy));
            }
        }
    }
}

//! Byte code, instruction by instruction (`py/bc0.h`, the same since format 6 began).

pub(super) const LOAD_CONST_NONE: u8 = 0x51;
pub(super) const LOAD_CONST_SMALL_INT: u8 = 0x22;
pub(super) const LOAD_CONST_STRING: u8 = 0x10;
pub(super) const LOAD_CONST_OBJ: u8 = 0x23;
pub(super) const LOAD_NAME: u8 = 0x11;
pub(super) const LOAD_GLOBAL: u8 = 0x12;
pub(super) const LOAD_ATTR: u8 = 0x13;
pub(super) const LOAD_METHOD: u8 = 0x14;
pub(super) const LOAD_SUPER_METHOD: u8 = 0x15;
pub(super) const BUILD_TUPLE: u8 = 0x2a;
pub(super) const SETUP_EXCEPT: u8 = 0x48;
pub(super) const CALL_FUNCTION: u8 = 0x34;
pub(super) const CALL_FUNCTION_VAR_KW: u8 = 0x35;
pub(super) const CALL_METHOD: u8 = 0x36;
pub(super) const CALL_METHOD_VAR_KW: u8 = 0x37;
pub(super) const IMPORT_NAME: u8 = 0x1b;
pub(super) const IMPORT_FROM: u8 = 0x1c;
pub(super) const IMPORT_STAR: u8 = 0x69;
const MAKE_CLOSURE: u8 = 0x20;
const MAKE_CLOSURE_DEFARGS: u8 = 0x21;
const MAKE_FUNCTION: u8 = 0x32;
const MAKE_FUNCTION_DEFARGS: u8 = 0x33;

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins in the byte code, in bytes.
    pub offset: usize,
    /// Its length in bytes.
    pub size: usize,
    /// What it does.
    pub opcode: u8,
    /// Its argument: number of a qstr, of an object or a function, a count, a small integer, or a jump
    /// relative to the instruction's end. 0 where there is none.
    pub argument: i64,
}

/// What an argument is the number of.
pub(super) enum Reference {
    Qstr(usize),
    Object(usize),
    Child(usize),
    None,
}

impl Instruction {
    pub(super) fn reference(self) -> Reference {
        let number = usize::try_from(self.argument).unwrap_or(usize::MAX);
        match self.opcode {
            0x10..=0x1f => Reference::Qstr(number),
            LOAD_CONST_OBJ => Reference::Object(number),
            MAKE_CLOSURE | MAKE_CLOSURE_DEFARGS | MAKE_FUNCTION | MAKE_FUNCTION_DEFARGS => {
                Reference::Child(number)
            }
            _ => Reference::None,
        }
    }

    /// The small integer that it loads, if it does.
    pub(super) fn small_int(self) -> Option<i64> {
        match self.opcode {
            LOAD_CONST_SMALL_INT => Some(self.argument),
            0x70..=0xaf => Some(i64::from(self.opcode) - 0x70 - 16),
            _ => None,
        }
    }
}

/// The instructions of this byte code; the last one is an error when there is something else.
pub(super) fn decode(code: &[u8]) -> impl Iterator<Item = Result<Instruction, &'static str>> {
    let mut offset = 0;
    let mut stopped = false;
    std::iter::from_fn(move || {
        if stopped || offset >= code.len() {
            return None;
        }
        let next = one(code, offset);
        match &next {
            Ok(instruction) => offset += instruction.size,
            Err(_) => stopped = true,
        }
        Some(next)
    })
}

const fn is_known(opcode: u8) -> bool {
    !matches!(
        opcode,
        0x00..=0x0f | 0x1d..=0x1f | 0x38..=0x3f | 0x41 | 0x4c..=0x4f | 0x60..=0x61 | 0x6a..=0x6f
            | 0xd4..=0xd6 | 0xfa..
    )
}

fn one(code: &[u8], offset: usize) -> Result<Instruction, &'static str> {
    const CUT: &str = "an instruction is cut off";
    let mut at = offset;
    let mut next = || {
        let byte = code.get(at).copied().ok_or(CUT)?;
        at += 1;
        Ok::<_, &'static str>(byte)
    };
    let opcode = next()?;
    if !is_known(opcode) {
        return Err("an instruction is none that is known");
    }
    let argument = match opcode >> 4 {
        1..=3 => {
            let mut byte = next()?;
            let mut value = i64::from(byte & 0x7f);
            if opcode == LOAD_CONST_SMALL_INT && byte & 0x40 != 0 {
                value -= 0x80;
            }
            let mut length = 1;
            while byte & 0x80 != 0 {
                byte = next()?;
                length += 1;
                if length > 10 {
                    return Err("an argument has more than 64 bits");
                }
                value = value.wrapping_shl(7) | i64::from(byte & 0x7f);
            }
            value
        }
        4 => {
            // Backwards, too: UNWIND_JUMP, JUMP and the two POP_JUMP_IF.
            let signed = opcode <= 0x44;
            let low = i64::from(next()?);
            if low & 0x80 == 0 {
                low - if signed { 0x40 } else { 0 }
            } else {
                let value = low & 0x7f | i64::from(next()?) << 7;
                value - if signed { 0x4000 } else { 0 }
            }
        }
        _ => 0,
    };
    if opcode & 0x9e == 0 {
        next()?;
    }
    Ok(Instruction {
        offset,
        size: at - offset,
        opcode,
        argument,
    })
}

//! Reading a `.mpy` file from front to back, never beyond its end.

use super::MpyError;

/// Where reading stands.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn damaged(&self, why: &'static str) -> MpyError {
        MpyError::Damaged { why, at: self.at }
    }

    /// Bytes that are not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], MpyError> {
        let end = self.at.checked_add(length);
        let part = end.and_then(|end| self.bytes.get(self.at..end));
        let part = part.ok_or_else(|| self.damaged("it is cut off"))?;
        self.at += length;
        Ok(part)
    }

    pub(super) fn byte(&mut self) -> Result<u8, MpyError> {
        Ok(self.take(1)?[0])
    }

    /// The NUL behind a text, which boards rely on when they read texts where they lie.
    pub(super) fn nul(&mut self) -> Result<(), MpyError> {
        match self.byte()? {
            0 => Ok(()),
            _ => Err(self.damaged("a text has no NUL behind it")),
        }
    }

    /// A varuint of up to 32 bits.
    pub(super) fn varuint(&mut self) -> Result<usize, MpyError> {
        let rest = &self.bytes[self.at..];
        let (value, after) = pytheas_release::board::varuint(rest)
            .ok_or_else(|| self.damaged("a number is cut off or too large"))?;
        self.at = self.bytes.len() - after.len();
        Ok(value)
    }
}

//! Intel HEX (Intel's specification of 1988, revision A): text records with addresses and checksums.
//!
//! ```text
//! :LLAAAATT data CC    length, address, type, data, checksum: all bytes together are 0 modulo 256
//!   00 data   01 end   02 upper address × 16   04 upper address × 65536   03, 05 start address
//! ```
//! The file is written anew: records in the order of their addresses, as long as the longest one was.

use std::{collections::BTreeMap, fmt::Write, ops::Range};

use super::{FirmwareError, Format, Injected, Placement, overlap};

pub(super) fn is(firmware: &[u8]) -> bool {
    firmware.first() == Some(&b':')
        && firmware
            .get(1..9)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// What a file says.
#[derive(Default)]
struct Content {
    /// Data by address; parts do not overlap, and neighbours are joined.
    parts: BTreeMap<u32, Vec<u8>>,
    /// Records of start addresses, kept as they are.
    starts: Vec<(u8, Vec<u8>)>,
    /// Longest data of a record.
    longest: usize,
}

pub(super) fn inject(
    firmware: &[u8],
    image: &[u8],
    placement: &Placement,
) -> Result<Injected, FirmwareError> {
    if placement.family.is_some() {
        return Err(FirmwareError::Option {
            option: "--family",
            format: "an Intel HEX file",
        });
    }
    let address = super::address(placement, "an Intel HEX file")?;
    let mut content = Content::parse(firmware)?;
    if address % 4 != 0 {
        return Err(FirmwareError::Misaligned { address, step: 4 });
    }
    let place = super::place(image, address, placement.room)?;
    let replaced = content.remove_old(address);
    if let Some(there) = content.ranges().find(|there| overlap(&place, there)) {
        let what = "the firmware itself".to_owned();
        return Err(FirmwareError::Overlap {
            image: place,
            there,
            what,
        });
    }
    content.parts.insert(address, image.to_vec());
    let line_end = if firmware.windows(2).any(|pair| pair == b"\r\n") {
        "\r\n"
    } else {
        "\n"
    };
    Ok(Injected {
        bytes: content.encode(line_end).into_bytes(),
        format: Format::IntelHex,
        address,
        image_size: u32::try_from(image.len()).unwrap_or(u32::MAX),
        room: placement.room,
        partition: None,
        family: None,
        replaced,
    })
}

impl Content {
    fn parse(firmware: &[u8]) -> Result<Self, FirmwareError> {
        let mut content = Self::default();
        let mut upper = 0_u32;
        let mut ended = false;
        let mut at = 0;
        for line in firmware.split(|byte| *byte == b'\n') {
            let here = at;
            at += line.len() + 1;
            let damaged = |why: &str| FirmwareError::Damaged {
                why: why.to_owned(),
                at: here,
            };
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if ended {
                return Err(damaged("there is something behind the end record"));
            }
            let record = record(line).map_err(damaged)?;
            let [length, high, low, kind, rest @ ..] = &record[..] else {
                return Err(damaged("a record is cut off"));
            };
            let [data @ .., _checksum] = rest else {
                return Err(damaged("a record is cut off"));
            };
            if data.len() != usize::from(*length) {
                return Err(damaged("a record has another length than it says"));
            }
            match (*kind, data) {
                (0, _) => {
                    let offset = u32::from(u16::from_be_bytes([*high, *low]));
                    if offset as usize + data.len() > 0x1_0000 {
                        return Err(damaged("a record goes beyond its 64 KiB"));
                    }
                    let start = upper.checked_add(offset);
                    let start = start.ok_or_else(|| damaged("an address is beyond 4 GiB"))?;
                    content.add(start, data).map_err(damaged)?;
                }
                (1, []) => ended = true,
                (2, [a, b]) => upper = u32::from(u16::from_be_bytes([*a, *b])) << 4,
                (4, [a, b]) => upper = u32::from(u16::from_be_bytes([*a, *b])) << 16,
                (3 | 5, [_, _, _, _]) => content.starts.push((*kind, data.to_vec())),
                _ => return Err(damaged("a record has a type that is not known")),
            }
        }
        if !ended {
            return Err(FirmwareError::Damaged {
                why: "it has no end record".into(),
                at,
            });
        }
        content.join();
        Ok(content)
    }

    fn add(&mut self, start: u32, data: &[u8]) -> Result<(), &'static str> {
        if data.is_empty() {
            return Ok(());
        }
        let end = u64::from(start) + data.len() as u64;
        let before = self.parts.range(..=start).next_back();
        let clash = before
            .is_some_and(|(at, part)| u64::from(*at) + part.len() as u64 > start.into())
            || self
                .parts
                .range(start..)
                .next()
                .is_some_and(|(at, _)| u64::from(*at) < end);
        if clash {
            return Err("two records are for the same address");
        }
        self.longest = self.longest.max(data.len());
        self.parts.insert(start, data.to_vec());
        Ok(())
    }

    /// Joins neighbours into one part each.
    fn join(&mut self) {
        let mut joined: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (start, data) in std::mem::take(&mut self.parts) {
            match joined.last_entry() {
                Some(mut last)
                    if u64::from(*last.key()) + last.get().len() as u64 == u64::from(start) =>
                {
                    last.get_mut().extend(data);
                }
                _ => {
                    joined.insert(start, data);
                }
            }
        }
        self.parts = joined;
    }

    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let range = |(start, data): (&u32, &Vec<u8>)| {
            u64::from(*start)..u64::from(*start) + data.len() as u64
        };
        self.parts.iter().map(range)
    }

    /// Takes out an image that was put in before, whole; it may be joined with what surrounds it.
    fn remove_old(&mut self, address: u32) -> bool {
        let before = self.parts.range(..=address).next_back();
        let Some((start, data)) = before.map(|(start, data)| (*start, data.clone())) else {
            return false;
        };
        let at = (address - start) as usize;
        let Some(tail) = data.get(at..) else {
            return false;
        };
        let Ok(rom) = crate::romfs::Rom::read(tail) else {
            return false;
        };
        self.parts.remove(&start);
        if at > 0 {
            self.parts.insert(start, data[..at].to_vec());
        }
        let behind = &tail[rom.size..];
        if let Some(end) = u32::try_from(rom.size)
            .ok()
            .and_then(|size| address.checked_add(size))
            && !behind.is_empty()
        {
            self.parts.insert(end, behind.to_vec());
        }
        true
    }

    fn encode(&self, line_end: &str) -> String {
        let mut out = String::new();
        let mut line = |address: u16, kind: u8, data: &[u8]| {
            let [high, low] = address.to_be_bytes();
            let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
            let head = [length, high, low, kind];
            let sum = head
                .iter()
                .chain(data)
                .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            out.push(':');
            for byte in head.iter().chain(data).chain([&sum.wrapping_neg()]) {
                let _infallible = write!(out, "{byte:02X}");
            }
            out.push_str(line_end);
        };
        let longest = self.longest.clamp(16, 255);
        let mut upper = 0;
        for (start, data) in &self.parts {
            let mut at = u64::from(*start);
            let mut rest = &data[..];
            while !rest.is_empty() {
                // Parts end at 4 GiB at the latest, and each record within its 64 KiB.
                let [.., a, b, c, d] = at.to_be_bytes();
                let (page, offset) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                if page != upper {
                    line(0, 4, &page.to_be_bytes());
                    upper = page;
                }
                let length = rest.len().min(longest).min(0x1_0000 - usize::from(offset));
                let (now, later) = rest.split_at(length);
                line(offset, 0, now);
                (at, rest) = (at + length as u64, later);
            }
        }
        for (kind, data) in &self.starts {
            line(0, *kind, data);
        }
        line(0, 1, &[]);
        out
    }
}

/// The bytes of one line, whose checksum is right.
fn record(line: &[u8]) -> Result<Vec<u8>, &'static str> {
    let digits = line
        .strip_prefix(b":")
        .ok_or("a line does not begin with `:`")?;
    let bytes = hex::decode(digits).map_err(|_| "a line is not made of hexadecimal digits")?;
    if bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
        return Err("the checksum of a line is wrong");
    }
    Ok(bytes)
}

//! `pytheas board inject`: an image put into a ready firmware file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use miette::{Context as _, IntoDiagnostic as _, miette};
use pytheas_board::{
    firmware::{self, Board, Format, Injected, Placement},
    romfs::Rom,
};
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show, bytes},
};

/// The largest file that is read: more than any flash of a microcontroller, as text.
const FILE_MAX: u64 = 512 << 20;

/// Put a board image into a ready firmware file, without a C toolchain
///
/// Takes UF2, ESP32 flash content (`.bin` with boot loader and partition table) and Intel HEX. The
/// firmware must have a ROMFS partition: on ESP32 it is found by its name in the partition table, elsewhere
/// its address is given. Everything else in the firmware stays as it is; an image that was put in before
/// is replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct InjectArgs {
    /// The image: `app.romfs` of a build, or any other ROMFS image
    image: PathBuf,
    /// The firmware file
    #[arg(long, value_name = "FIRMWARE")]
    into: PathBuf,
    /// Where to write the new firmware file
    #[arg(long, short)]
    out: PathBuf,
    /// Address of the ROMFS partition, such as `0x10100000` (UF2, Intel HEX)
    #[arg(long, value_parser = number, conflicts_with = "board")]
    address: Option<u32>,
    /// Size of the ROMFS partition at that address, such as `256K`; a larger image is refused
    #[arg(long, value_parser = number, requires = "address")]
    room: Option<u32>,
    /// Board whose ROMFS partition has a fixed address, such as `PYBD_SF6` (UF2, Intel HEX)
    #[arg(long)]
    board: Option<String>,
    /// Name of the partition, if not `romfs` (ESP32)
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Add the partition with this size, such as `256K`, when it is not there (ESP32)
    #[arg(long, value_name = "SIZE", value_parser = number)]
    add_partition: Option<u32>,
    /// Partition that becomes smaller when there is no free space, such as `vfs` (ESP32)
    #[arg(long, value_name = "NAME", requires = "add_partition")]
    take_from: Option<String>,
    /// Family the image is for, such as `0xe48bff56`, where the file is for several (UF2)
    #[arg(long, value_parser = number)]
    family: Option<u32>,
}

#[derive(Serialize)]
struct Shown<'a> {
    firmware: &'a Path,
    size_bytes: usize,
    files: usize,
    #[serde(flatten)]
    injected: &'a Injected,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let Injected {
            format,
            address,
            image_size,
            room,
            partition,
            replaced,
            ..
        } = self.injected;
        out.fact("firmware", self.firmware.display())?;
        out.fact(
            "format",
            match format {
                Format::Uf2 => "UF2",
                Format::Esp32 => "ESP32 flash content",
                Format::IntelHex => "Intel HEX",
            },
        )?;
        let of = room
            .map(|room| format!(" of {}", bytes(u64::from(room))))
            .unwrap_or_default();
        let files = if self.files == 1 {
            "1 file".to_owned()
        } else {
            format!("{} files", self.files)
        };
        out.fact(
            "image",
            format!("{files}, {}{of}", bytes(u64::from(*image_size))),
        )?;
        let name = partition
            .as_ref()
            .map(|name| format!(", partition `{name}`"))
            .unwrap_or_default();
        out.fact("address", format!("{address:#x}{name}"))?;
        if *replaced {
            out.fact("replaced", "the image that was there before")?;
        }
        Ok(())
    }
}

/// Runs the verb.
pub(crate) fn run(args: &InjectArgs, context: &Context) -> miette::Result<()> {
    let image = read(&args.image)?;
    let rom = Rom::read(&image)
        .wrap_err_with(|| format!("cannot put `{}` into a firmware", args.image.display()))?;
    let firmware = read(&args.into)?;
    let injected = firmware::inject(&firmware, &image[..rom.size], &placement(args)?)
        .wrap_err_with(|| format!("cannot put the image into `{}`", args.into.display()))?;
    pytheas_durable::replace(&args.out, &injected.bytes)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot write `{}`", args.out.display()))?;
    context.show(&Shown {
        firmware: &args.out,
        size_bytes: injected.bytes.len(),
        files: rom.files.len(),
        injected: &injected,
    })
}

fn placement(args: &InjectArgs) -> miette::Result<Placement> {
    let board = match &args.board {
        None => None,
        Some(name) => Some(Board::named(name).ok_or_else(|| {
            let known: Vec<_> = firmware::BOARDS.iter().map(|board| board.name).collect();
            let known = known.join("`, `");
            miette!(
                help = format!(
                    "known are `{known}`; for others give `--address`; ESP32 files need neither"
                ),
                "the address of the ROMFS partition of board `{name}` is not known"
            )
        })?),
    };
    Ok(Placement {
        address: args.address.or(board.map(|board| board.address)),
        room: args.room.or(board.map(|board| board.size)),
        partition: args.partition.clone(),
        add: args.add_partition,
        take_from: args.take_from.clone(),
        family: args.family,
    })
}

fn read(path: &Path) -> miette::Result<Vec<u8>> {
    let shown = || format!("cannot read `{}`", path.display());
    let size = fs::metadata(path)
        .into_diagnostic()
        .wrap_err_with(shown)?
        .len();
    if size > FILE_MAX {
        let text = "it is larger than the flash of any microcontroller";
        return Err(miette!("{text}")).wrap_err_with(shown);
    }
    fs::read(path).into_diagnostic().wrap_err_with(shown)
}

/// `0x10100000`, `4096`, `256K`, `1M`.
fn number(text: &str) -> Result<u32, String> {
    let wrong = || "is no number such as `0x10100000`, `4096`, `256K` or `1M`".to_owned();
    let (digits, scale) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1024),
        None => text
            .strip_suffix(['M', 'm'])
            .map_or((text, 1), |digits| (digits, 1024 * 1024)),
    };
    let value = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    value
        .ok()
        .and_then(|value: u32| value.checked_mul(scale))
        .ok_or_else(wrong)
}

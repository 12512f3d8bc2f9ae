# Makes firmware files with, and reads them by, programs that are not ours:
# esptool and esp-idf-defs (ESP32), uf2utils (UF2), intelhex (Intel HEX).
import hashlib, re, struct, subprocess, sys


def elf(machine, sections):
    # a small ELF file with these sections: (address, content)
    names, data, headers, loads = b"\0.t\0.shstrtab\0", b"", [b"\0" * 40], b""
    base = 52 + 32 * len(sections)
    for at, content in sections:
        off = base + len(data)
        headers.append(struct.pack("<10I", 1, 1, 6, at, off, len(content), 0, 0, 4, 0))
        loads += struct.pack("<8I", 1, off, at, at, len(content), len(content), 5, 4)
        data += content
    headers.append(struct.pack("<10I", 4, 3, 0, 0, base + len(data), len(names), 0, 0, 1, 0))
    data += names
    data += b"\0" * (-len(data) % 4)
    entry = sections[0][0]
    head = b"\x7fELF\x01\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIIIIIHHHHHH", 2, machine, 1, entry, 52, base + len(data), 0, 52, 32, len(sections), 40, len(headers), len(headers) - 1
    )
    return head + loads + data + b"".join(headers)


CHIPS = {  # ELF machine, program, boot loader, boot loader's flash offset
    "esp32": (0x5E, [(0x400D0020, bytes(range(256)) * 40), (0x40080000, b"y" * 400)], 0x40080400, 0x1000),
    "esp32c3": (0xF3, [(0x42000020, bytes(range(256)) * 40), (0x40380000, b"y" * 400)], 0x403CC710, 0),
    "esp32s3": (0x5E, [(0x42000020, bytes(range(256)) * 400), (0x40378000, b"y" * 400)], 0x403C9700, 0),
}


def esptool(*args):
    import contextlib, io

    import esptool as program

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        program.main(list(args))
    return out.getvalue()


def make_esp(chip, out, csv, from_zero):
    from esp_idf_defs.partitions import PartitionTable

    machine, program, boot, base = CHIPS[chip]
    for name, sections in (("app", program), ("boot", [(boot, b"z" * 800)])):
        open(out + "." + name + ".elf", "wb").write(elf(machine, sections))
        esptool("--chip", chip, "elf2image", "--flash-size", "4MB", "-o", out + "." + name, out + "." + name + ".elf")
    table = PartitionTable.from_csv(open(csv).read())
    table.verify()
    open(out + ".table", "wb").write(table.to_binary())
    offset = [] if from_zero == "zero" else ["--target-offset", hex(base)]
    esptool("--chip", chip, "merge-bin", "-o", out, *offset, hex(base), out + ".boot", "0x8000", out + ".table", "0x10000", out + ".app")


def read_esp(chip, path, base):
    from esp_idf_defs.partitions import PartitionTable

    data = b"\xff" * int(base, 0) + open(path, "rb").read()
    table = PartitionTable.from_binary(data[0x8000:0x8C00])
    table.verify()
    for p in table:
        print(p.name, p.type, p.subtype, hex(p.offset), hex(p.size))
    for name, at in (("boot loader", CHIPS[chip][3]), ("program", 0x10000)):
        open(path + ".part", "wb").write(data[at:])
        text = esptool("--chip", chip, "image-info", path + ".part")
        assert re.search(r"Checksum: 0x\w+ \(valid\)", text) and re.search(r"Validation hash: \w+ \(valid\)", text), text
        print(name, "valid")


def parts(name, items):
    # contiguous parts of (address, content)
    at = content = None
    for start, data in list(items) + [(None, b"")]:
        if content is not None and start == at + len(content):
            content += data
            continue
        if content is not None:
            print(name, hex(at), len(content), hashlib.sha256(content).hexdigest())
        at, content = start, bytes(data)


def make_uf2(binary, out, family, address):
    from uf2utils.file import UF2File

    file = UF2File(board_family=int(family, 0))
    file.append_payload(bytearray(open(binary, "rb").read()), int(address, 0))
    file.to_file(out)


def read_uf2(path):
    from uf2utils.file import UF2File

    blocks = UF2File.readBlocks(path)
    families = {}
    for block in blocks:
        families.setdefault(block.header.board_family, []).append(block)
    for family, own in families.items():
        numbers = [(b.header.block_number, b.header.total_blocks) for b in own]
        counted = numbers == [(n, len(own)) for n in range(len(own))]
        print(hex(family), "counted" if counted else numbers)
        parts(hex(family), ((b.header.address, b.payload) for b in own))


def read_hex(path):
    from intelhex import IntelHex

    file = IntelHex(path)
    parts("hex", ((a, file.tobinstr(a, b - 1)) for a, b in file.segments()))
    print("start", file.start_addr)


globals()[sys.argv[1]](*sys.argv[2:])

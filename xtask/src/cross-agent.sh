# Builds the device agent as it is shipped (static, profile `agent`) and the emulated test's app
# for 64-bit and 32-bit Arm, on a Debian host without rustup targets: a Debian unstable root, made
# once, brings rustc, cargo and the Arm standard libraries and C compilers.
#
# Usage: sh cross-agent.sh ROOT SOURCES CARGO_HOME RUSTFLAGS
# SOURCES/target/cross/CPU/{pytheas-agent,app} for CPU in aarch64, armv7. Needs root; the first time
# takes 2 minutes and 3 GB in ROOT.
set -eu
root=$1
src=$2
cargo_home=$3
rustflags=$4

if [ ! -e "$root/.complete" ]; then
    [ -x "$root/usr/bin/apt-get" ] || debootstrap --variant=minbase sid "$root" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
    # A stored archive's Release file may be past its date; its signature is checked all the same.
    echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/99valid"
    cp /etc/resolv.conf "$root/etc/resolv.conf" || true
    for file in /etc/apt/apt.conf.d/*proxy*; do
        [ ! -e "$file" ] || cp "$file" "$root/etc/apt/apt.conf.d/"
    done
    chroot "$root" sh -ec '
        dpkg --add-architecture arm64
        dpkg --add-architecture armhf
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends \
            ca-certificates rustc cargo gcc libc6-dev make cmake perl \
            gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross \
            libstd-rust-dev:arm64 libstd-rust-dev:armhf' >>"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; exit 1; }
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    : >"$root/.complete"
fi
# The launcher for riscv64 needs that CPU's `core`, of the same version: unpacked only, since its
# dependencies are a whole system.
if [ ! -e "$root/usr/lib/rustlib/riscv64gc-unknown-linux-gnu" ]; then
    chroot "$root" sh -ec '
        dpkg --add-architecture riscv64
        apt-get -qq update
        cd "$(mktemp -d)"
        apt-get -qq -o APT::Sandbox::User=root download \
            "libstd-rust-dev:riscv64=$(dpkg-query -W -f "\${Version}" rustc)"
        dpkg -x libstd-rust-dev_*.deb .
        mv usr/lib/rustlib/riscv64gc-unknown-linux-gnu /usr/lib/rustlib/
        rm -r "$PWD"' >>"$root.log" 2>&1 ||
        echo "no core for riscv64: its launcher cannot be compiled again (\`cargo xtask launcher\`)" >&2
fi
mkdir -p "$root/src" "$root/root/.cargo" "$src/target/cross"

# How this machine reaches the registry is how the chroot does.
set --
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    ! value=$(printenv "$name") || set -- "$@" "$name=$value"
done

# Mounts of a namespace of our own: they end with it.
export root src cargo_home rustflags
exec unshare --mount --propagation private sh -eu -c '
    mount --bind "$src" "$root/src"
    mount --bind "$cargo_home" "$root/root/.cargo"
    exec chroot "$root" env -i HOME=/root PATH=/usr/bin:/bin CARGO_TARGET_DIR=/src/target/cross/build \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc \
        CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
        CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc \
        CFLAGS_aarch64_unknown_linux_gnu=-fno-asynchronous-unwind-tables \
        CFLAGS_armv7_unknown_linux_gnueabihf=-fno-asynchronous-unwind-tables \
        RUSTFLAGS="$rustflags -A linker_messages" \
        "$@" sh -eu -c '\''
            cd /src
            build() {
                cargo build --quiet --locked --profile agent --package pytheas-agent --target "$2"
                mkdir -p "target/cross/$1"
                cp "target/cross/build/$2/agent/pytheas-agent" "target/cross/$1/pytheas-agent"
                "$3-gcc" -static -O2 -s -o "target/cross/$1/app" \
                    crates/pytheas-agent/tests/agent/emulated/app.c
            }
            build aarch64 aarch64-unknown-linux-gnu aarch64-linux-gnu
            build armv7 armv7-unknown-linux-gnueabihf arm-linux-gnueabihf
        '\''
' sh "$@"

#!/bin/sh
# Written by pytheas: `zig @LANGUAGE@` as a compiler of the usual kind for @TARGET@.
# zig refuses some of gcc's arguments, and what is for this machine must not get into the result.
count=$#
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    count=$((count - 1))
    case $argument in
        -flto | -flto=* | -ffat-lto-objects | -fno-fat-lto-objects | -fuse-linker-plugin | -fuse-ld=* | -specs=* | -fcf-protection*) continue ;;
        -fno-semantic-interposition | -fstack-clash-protection | -mtune=* | -march=* | -mcpu=* | -mfpu=* | -Wp,* | -pipe | -fwrapv-pointer) continue ;;
        -Wl,-rpath-link* | -Wl,-Bsymbolic* | -Wl,--build-id* | -Wl,-Map* | -Wl,-R* | -Wl,--enable-new-dtags | -Wl,--no-undefined-version) continue ;;
        -I/usr/include* | -I/usr/local/* | -I/opt/* | -L/usr/lib* | -L/usr/local/* | -L/lib* | -L/opt/* | -Wl,-rpath,/usr/* | @HOST_INCLUDE@) continue ;;
    esac
    set -- "$@" "$argument"
done
exec "@ZIG@" @LANGUAGE@ -target @TARGET@ -O2 -fno-sanitize=undefined -ffile-prefix-map=@ROOT_MAP@ \
    -ffile-prefix-map=@INCLUDE_MAP@ @LENIENT@ -Wno-unused-command-line-argument -I@INCLUDE_ARG@ "$@" -g0 -s

#!/usr/bin/env bash
# Updaters of whole images or packages, for `bench/delta.sh`: what a device fetches for the tree
# NAME-b when it has NAME-a, made with their own programs as they are commonly set up. Read by it:
# needs `row`, `spent`, and NAME-a.tar, NAME-b.tar in the working folder.
# Needs Debian's rauc squashfs-tools mender-artifact rdiff zchunk e2fsprogs openssl cpio; what is not
# there is unpacked below DIR/peers from Debian's packages, without root.

peers_here() {
  local tool missing=()
  export PATH=$PATH:/sbin:/usr/sbin:$PWD/peers/usr/bin:$PWD/peers/usr/sbin
  for tool in rauc:rauc,libjson-glib-1.0-0 mksquashfs:squashfs-tools,liblzo2-2 mender-artifact:mender-artifact rdiff:rdiff,librsync2; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    mkdir -p peers/debs
    (cd peers/debs && apt-get download -qq $(tr ',' ' ' <<<"${missing[*]}") 2>/dev/null &&
      for one in *.deb; do dpkg-deb -x "$one" ..; done)
  fi
  if [ -d peers/usr/lib ]; then
    export LD_LIBRARY_PATH=$(echo "$PWD"/peers/usr/lib/*-linux-gnu "$PWD"/peers/lib/*-linux-gnu | tr ' ' ':')
  fi
  # Mender wants the key in its traditional form.
  [ -f peers-cert.pem ] || { openssl genrsa -traditional -out peers-key.pem 2048 &&
    openssl req -x509 -new -key peers-key.pem -out peers-cert.pem -subj /CN=bench -days 36500; } 2>/dev/null
}

# An ext4 image of a tree, as reproducible as one can be: times, owners, identifiers fixed. Both of a
# pair have the size of the larger tree and an eighth more.
image() { # NAME SIDE MIB
  rm -rf image-tree "$1-$2.ext4"; mkdir image-tree; tar -xf "$1-$2.tar" -C image-tree
  E2FSPROGS_FAKE_TIME=1 mkfs.ext4 -q -b 4096 -O ^has_journal,^metadata_csum,^resize_inode -m 0 -N 32768 \
    -U 00000000-0000-0000-0000-000000000001 -E hash_seed=00000000-0000-0000-0000-000000000002,lazy_itable_init=0,root_owner=0:0 \
    -d image-tree "$1-$2.ext4" "$3M" >/dev/null 2>&1
  rm -rf image-tree
}

# What RAUC reads of a bundle with `adaptive=block-hash-index`: the index, and of the bundle's
# squashfs (zlib, 128 KiB) the blocks that hold a 4 KiB block of the image which the old slot has
# not. Manifest, signature, verity and directory are left out, in its favour.
adaptive() { # OLD NEW
  python3 - "$1" "$2" <<'P'
import hashlib, sys, zlib
BLOCK, SQUASHFS = 4096, 131072
def blocks(path):
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            yield hashlib.sha256(block).digest()
old = set(blocks(sys.argv[1])) | {hashlib.sha256(bytes(BLOCK)).digest()}
index, total = b"", 0
with open(sys.argv[2], "rb") as file:
    while chunk := file.read(SQUASHFS):
        digests = [hashlib.sha256(chunk[at:at + BLOCK]).digest() for at in range(0, len(chunk), BLOCK)]
        index += b"".join(digests)
        if any(digest not in old for digest in digests):
            total += min(len(zlib.compress(chunk, 9)), len(chunk))
for at in range(0, len(index), SQUASHFS):
    total += min(len(zlib.compress(index[at:at + SQUASHFS], 9)), SQUASHFS)
print(total)
P
}

sw_description() { # FILE HANDLER: one image, to be put at the front of a .swu
  printf 'software = {\n  version = "1.1.0";\n  images: ( {\n    filename = "%s"; type = "%s"; device = "/dev/sdb2";\n    sha256 = "%s";\n  } );\n}\n' \
    "$1" "$2" "$(sha256sum "$1" | cut -d' ' -f1)" >sw-description
  openssl dgst -sha256 -sign peers-key.pem sw-description >sw-description.sig
  printf '%s\n' sw-description sw-description.sig "$1" | cpio -o -H crc --quiet
}

peers() { # NAME
  local p=$1 mib made applied bytes header
  mib=$(($(stat -c '%s' "$p-a.tar" "$p-b.tar" | sort -n | tail -1) * 9 / 8 / 1048576 + 16))
  image "$p" a "$mib"; image "$p" b "$mib"

  rm -rf bundle bundle.raucb; mkdir bundle; cp --sparse=always "$p-b.ext4" bundle/rootfs.ext4
  printf '[update]\ncompatible=bench\nversion=1.1.0\n[bundle]\nformat=verity\n[image.rootfs]\nfilename=rootfs.ext4\nadaptive=block-hash-index\n' >bundle/manifest.raucm
  made=$(spent rauc bundle --cert=peers-cert.pem --key=peers-key.pem bundle bundle.raucb)
  row "RAUC, adaptive (block-hash-index) over an ext4 image" "$(adaptive "$p-a.ext4" "$p-b.ext4")" "$made"
  row "RAUC, whole bundle" "$(stat -c%s bundle.raucb)" "$made"

  zck -u -h sha256 -o i-a.zck "$p-a.ext4" >/dev/null 2>&1
  made=$(spent zck -u -h sha256 -o i-b.zck "$p-b.ext4")
  header=$(zck_read_header -v i-b.zck 2>/dev/null | sed -n 's/.*Header size: *\([0-9]*\).*/\1/p')
  head -c "$header" i-b.zck >rootfs.header; sw_description rootfs.header delta >update.swu
  bytes=$(zck_delta_size i-a.zck i-b.zck 2>&1 | sed -n 's/Would download \([0-9]*\) of.*/\1/p')
  row "SWUpdate, delta handler (zchunk) over an ext4 image" "$(swupdate_delta "$bytes" "$header")" "$made"
  rdiff -f signature "$p-a.ext4" image.sig
  made=$(spent rdiff -f delta image.sig "$p-b.ext4" image.rdiff)
  zstd -q -19 -f image.rdiff -o image.rdiff.zst; sw_description image.rdiff.zst rdiff_image >update.swu
  applied=$(spent rdiff -f patch "$p-a.ext4" image.rdiff image.new)
  cmp -s image.new "$p-b.ext4" || echo "rdiff: what came out is not the image" >&2
  row "SWUpdate, rdiff handler over an ext4 image, zstd -19" "$(stat -c%s update.swu)" "$made" "$applied"
  rm -f image.* i-?.zck

  cp "$p-b.tar" update.tar; echo /opt/app >dest_dir
  made=$(spent mender-artifact --compression lzma write module-image -T directory -t bench -n "$p-1.1.0" \
    -k peers-key.pem -f update.tar -f dest_dir -o update.mender)
  row "Mender, update module \`directory\`, lzma (its delta generator is not free)" "$(stat -c%s update.mender)" "$made"
  rm -rf bundle bundle.raucb update.* rootfs.header "$p-?.ext4" "$p-a.ext4" "$p-b.ext4"
}

# `zck_delta_size` counts the header in; the .swu brings it instead.
swupdate_delta() { echo $(($1 - $2 + $(stat -c%s update.swu))); }

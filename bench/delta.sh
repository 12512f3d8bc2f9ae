#!/usr/bin/env bash
# The bytes that bring one application tree to the next: ours and every peer's, as a Markdown table,
# with the seconds and the peak memory of making and, where the peer can do that on a plain folder,
# of applying; `cp -a` of the new tree beside them.
# Needs: pytheas (release build; $PYTHEAS), uv, a CPython 3.11 ($PY_HOME), GNU time, and Debian's
# casync zchunk xdelta3 zstd ostree; for `delta_peers.sh` see there.
#   bench/delta.sh DIR [NAME…]     DIR/NAME-a and DIR/NAME-b are made if they are not there
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/delta_peers.sh"
PYTHEAS=${PYTHEAS:-pytheas}
UV=${UV:-uv}
PY_HOME=${PY_HOME:-$(python3 -c 'import sys; print(sys.base_prefix)')}
DIR=${1:?a folder to work in}; shift
NAMES=("${@:-octo data pf}"); read -ra NAMES <<<"${NAMES[*]}"

tree() { # NAME DATE REQUIREMENT…: runtime and site-packages as of that date, no byte code
  local out=$1 date=$2; shift 2
  [ -d "$out" ] && return
  mkdir -p "$out/runtime"
  cp -a "$PY_HOME/bin" "$PY_HOME/lib" "$out/runtime/"
  rm -rf "$out"/runtime/lib/python3.*/site-packages/* "$out"/runtime/lib/python3.*/test
  "$UV" pip install -q --python "$PY_HOME/bin/python3" --target "$out/site-packages" --exclude-newer "$date" "$@"
  find "$out" -name __pycache__ -prune -exec rm -rf {} +
}
pair() {
  case $1 in
    octo) tree octo-a 2024-08-20 octoprint==1.10.2; tree octo-b 2024-11-10 octoprint==1.10.3 ;;
    data) tree data-a 2024-03-01 datasette==0.64.6; tree data-b 2024-07-01 datasette==0.64.8 ;;
    pf) tree pf-a 2024-03-01 pandas==2.2.1 fastapi==0.110.0 uvicorn
        tree pf-b 2024-05-10 pandas==2.2.2 fastapi==0.111.0 uvicorn ;;
  esac
}
ostree_delta() { # NAME LABEL OPTION…: the parts, and what it leaves to be fetched apart
  local p=$1 label=$2 apart=0 object file made applied parts; shift 2
  rm -rf repo device; ostree init --repo=repo --mode=archive
  ostree --repo=repo commit -b m --tree=dir="$p-a" >/dev/null
  ostree init --repo=device --mode=bare-user; ostree --repo=device pull-local repo m >/dev/null 2>&1
  ostree --repo=repo commit -b m --tree=dir="$p-b" >/dev/null
  made=$(spent ostree --repo=repo static-delta generate --filename=ostree.delta --inline "$@" m)
  while read -r object; do
    file=repo/objects/${object:0:2}/${object:2}.filez
    apart=$((apart + $(stat -c%s "$file")))
  done < <(sed -n 's/^fallback for \([0-9a-f]*\).*/\1/p' spent.log)
  parts=$(stat -c%s ostree.delta)
  applied=
  if [ "$apart" = 0 ]; then
    applied=$(spent sh -c 'ostree --repo=device static-delta apply-offline ostree.delta &&
      ostree --repo=device checkout -U "$(cat repo/refs/heads/m)" ostree-out')
  fi
  rm -rf ostree-out device ostree.delta
  row "$label" "$parts" "$made" "$applied"
  [ "$apart" = 0 ] || row "… with the objects that it leaves to be fetched apart" "$((parts + apart))"
}
# LABEL BYTES [MADE [APPLIED]]
row() {
  [ "${2:-0}" -gt 0 ] || { echo "$p: no bytes of $1" >&2; return 1; }
  printf '| %s | %s | %s | %s | %s |\n' "$1" "$(sed -E ':a; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; ta' <<<"$2")" \
    "$(awk "BEGIN { printf \"%.2f\", $OURS / $2 }")" "${3:-–}" "${4:-–}"
}
# Seconds of a command, those of CPU, and the peak memory of the largest of its processes.
spent() {
  /usr/bin/time -q -o spent.time -f '%e %U %S %M' "$@" >spent.log 2>&1 || { cat spent.log >&2; return 1; }
  awk 'END { printf "%.1f s, CPU %.1f s, %d MiB\n", $1, $2 + $3, $4 / 1024 }' spent.time
}

mkdir -p "$DIR"; cd "$DIR"
peers_here
echo "$(date -u +%F), $(nproc) cores, $(uname -sr), load $(cut -d' ' -f1-3 /proc/loadavg)"
for p in "${NAMES[@]}"; do
  pair "$p"
  for s in a b; do tar --sort=name --mtime=@0 --owner=0 --group=0 -cf "$p-$s.tar" -C "$p-$s" .; done
  made=$(spent "$PYTHEAS" delta make "$p-a" "$p-b" -o "$p.delta")
  OURS=$(stat -c%s "$p.delta")
  rm -rf out copy; cat "$p-b.tar" >/dev/null
  applied=$(spent "$PYTHEAS" delta apply "$p.delta" "$p-a" -o out)
  copied=$(spent cp -a "$p-b" copy)
  diff -r --no-dereference out "$p-b" >/dev/null || { echo "$p: what came out is not $p-b" >&2; exit 1; }
  rm -rf out copy
  printf '\n### %s\n\n| method | bytes | ours / it | made | applied |\n| --- | ---: | ---: | ---: | ---: |\n' "$p"
  row "**Pytheas delta**" "$OURS" "$made" "$applied"
  ostree_delta "$p" "OSTree static delta"
  ostree_delta "$p" "OSTree static delta, --min-fallback-size=0" --min-fallback-size=0
  made=$(spent zstd -q -19 --long=31 --patch-from="$p-a.tar" -M2048MB -f "$p-b.tar" -o d.zst)
  applied=$(spent zstd -q -d --long=31 --patch-from="$p-a.tar" -M2048MB -f d.zst -o d.tar)
  row "zstd -19 --long=31 --patch-from, of tars" "$(stat -c%s d.zst)" "$made" "$applied"
  made=$(spent xdelta3 -q -f -9 -S lzma -B 536870912 -e -s "$p-a.tar" "$p-b.tar" d.xd)
  applied=$(spent xdelta3 -q -f -B 536870912 -d -s "$p-a.tar" d.xd d.tar)
  row "xdelta3 -9 -S lzma, of tars" "$(stat -c%s d.xd)" "$made" "$applied"
  rm -f z-*.zck; zck -o z-a.zck "$p-a.tar" >/dev/null 2>&1; made=$(spent zck -o z-b.zck "$p-b.tar")
  row "zchunk, of tars" "$(zck_delta_size z-a.zck z-b.zck 2>&1 | sed -n 's/Would download \([0-9]*\).*/\1/p')" "$made"
  rm -rf st-a st-b
  casync make --compression=zstd --store=st-a a.caidx "$p-a" >/dev/null 2>&1
  made=$(spent casync make --compression=zstd --store=st-b b.caidx "$p-b")
  chunks=$(comm -13 <(cd st-a && find . -type f | sort) <(cd st-b && find . -type f | sort) |
    (cd st-b && xargs -r stat -c%s) | awk '{ sum += $1 } END { print sum + 0 }')
  applied=$(spent casync extract --store=st-b --seed="$p-a" --seed-output=no b.caidx out)
  rm -rf out
  row "casync (zstd chunks and index)" "$((chunks + $(stat -c%s b.caidx)))" "$made" "$applied"
  peers "$p"
  made=$(spent zstd -q -19 --long=27 -f "$p-b.tar" -o full.zst)
  row "whole, zstd -19 --long=27" "$(stat -c%s full.zst)" "$made"
  printf '\n`cp -a` of the new tree: %s\n' "$copied"
  rm -f d.zst d.xd d.tar full.zst z-?.zck spent.* "$p"-?.tar; rm -rf repo
done

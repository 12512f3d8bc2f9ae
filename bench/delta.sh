#!/usr/bin/env bash
# The bytes that bring one application tree to the next: ours and every peer's, as a Markdown table;
# then what making and applying ours costs, beside `cp -a` of the new tree.
# Needs: pytheas (release build; $PYTHEAS), uv, a CPython 3.11 ($PY_HOME), GNU time, and Debian's
# casync zchunk xdelta3 zstd ostree.
#   bench/delta.sh DIR [NAME…]     DIR/NAME-a and DIR/NAME-b are made if they are not there
set -euo pipefail
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
ostree_delta() { # NAME OPTION…: the parts, and what it leaves to be fetched apart
  local p=$1; shift
  rm -rf repo; ostree init --repo=repo --mode=archive
  ostree --repo=repo commit -b m --tree=dir="$p-a" >/dev/null
  ostree --repo=repo commit -b m --tree=dir="$p-b" >/dev/null
  local said apart=0 object file
  said=$(ostree --repo=repo static-delta generate "$@" m 2>&1)
  while read -r object; do
    file=repo/objects/${object:0:2}/${object:2}.filez
    apart=$((apart + $(stat -c%s "$file")))
  done < <(sed -n 's/^fallback for \([0-9a-f]*\).*/\1/p' <<<"$said")
  echo "$(du -sb repo/deltas | cut -f1) $apart"
}
row() { printf '| %s | %s | %s |\n' "$1" "$2" "$(awk "BEGIN { printf \"%.2f\", $OURS / $2 }")"; }
spent() { /usr/bin/time -f '%e s, %M KiB' "$@" 2>&1 >/dev/null | tail -1; }

mkdir -p "$DIR"; cd "$DIR"
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
  printf '\n### %s\n\n| method | bytes | ours / it |\n| --- | ---: | ---: |\n' "$p"
  row "**Pytheas delta**" "$OURS"
  zstd -q -19 --long=27 -f "$p-b.tar" -o full.zst; row "whole, zstd -19 --long=27" "$(stat -c%s full.zst)"
  zstd -q -19 --long=31 --patch-from="$p-a.tar" -M2048MB -f "$p-b.tar" -o d.zst
  row "zstd -19 --patch-from" "$(stat -c%s d.zst)"
  xdelta3 -q -f -9 -S lzma -B 536870912 -e -s "$p-a.tar" "$p-b.tar" d.xd; row "xdelta3 -9 -S lzma" "$(stat -c%s d.xd)"
  read -r parts apart <<<"$(ostree_delta "$p")"
  row "OSTree static delta, its file alone" "$parts"
  row "… with the objects that it leaves to be fetched apart" "$((parts + apart))"
  read -r parts apart <<<"$(ostree_delta "$p" --min-fallback-size=0)"
  row "OSTree static delta, --min-fallback-size=0" "$((parts + apart))"
  rm -f z-*.zck; zck -o z-a.zck "$p-a.tar" >/dev/null 2>&1; zck -o z-b.zck "$p-b.tar" >/dev/null 2>&1
  row "zchunk" "$(zck_delta_size z-a.zck z-b.zck 2>&1 | sed -n 's/Would download \([0-9]*\).*/\1/p')"
  rm -rf st-a st-b
  casync make --compression=zstd --store=st-a a.caidx "$p-a" >/dev/null 2>&1
  casync make --compression=zstd --store=st-b b.caidx "$p-b" >/dev/null 2>&1
  chunks=$(comm -13 <(cd st-a && find . -type f | sort) <(cd st-b && find . -type f | sort) |
    (cd st-b && xargs -r stat -c%s) | paste -sd+ | bc)
  row "casync (chunks and index)" "$((chunks + $(stat -c%s b.caidx)))"
  printf '\nmake: %s; apply, old tree hashed and new one laid out: %s; `cp -a`: %s\n' "$made" "$applied" "$copied"
done

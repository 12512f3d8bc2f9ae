#!/usr/bin/env bash
# Writes docs/reference/cli.md from what the programs say with --help.
#
#   cargo build -p pytheas -p pytheas-agent && docs/reference/generate-cli.sh
#
# PYTHEAS names another binary; pytheas-agent is taken from beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."
pytheas=$(realpath "${PYTHEAS:-target/debug/pytheas}")
agent=$(dirname "$pytheas")/pytheas-agent
export NO_COLOR=1 HOME=/home/ada
for name in $(compgen -e | grep '^PYTHEAS_' || true); do unset "$name"; done

help() { # help DEPTH SHOWN PROGRAM VERB...
    local depth=$1 shown=$2 text verb; shift 2
    text=$("$@" --help | sed 's/ *$//')
    printf '\n%s `%s`\n\n```text\n' "$depth" "$shown"
    # The flags of every verb are shown once, at the top.
    if [ "$depth" = "##" ]; then echo "$text"; else echo "$text" | sed '/^Global options:/,$d' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'; fi
    printf '```\n'
    for verb in $(echo "$text" | sed -n '/^Commands:/,/^$/p' | awk 'NR > 1 && /^  [a-z]/ { print $1 }'); do
        [ "$verb" = help ] || help '###' "$shown $verb" "$@" "$verb"
    done
}

{
    echo '# Command line'
    echo
    echo 'Made by `docs/reference/generate-cli.sh` from the programs'"'"' own `--help`; do not edit. The global'
    echo 'options, shown once, work with every verb of `pytheas`. Exit codes: [exit-codes.md](exit-codes.md),'
    echo 'variables: [environment.md](environment.md).'
    help '##' pytheas "$pytheas"
    help '##' pytheas-agent "$agent"
} > docs/reference/cli.md

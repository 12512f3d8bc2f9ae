#!/usr/bin/env bash
# Measures building, start-up and size of one application against the peers, and prints Markdown.
#
#   cargo build --release -p pytheas && bench/packaging.sh [OPTIONS] [PART…] > result.md
#
# Parts: build, start, size by default; apps (published applications, bench/apps.py, long) and one-file
# (what a one-file bundle's later start costs, bench/one_file.py) when named. Options: --work DIR keeps everything in DIR, so that a run that was cut goes on where
# it was; --runs N starts each (30); --repeat N builds each, the fastest counts (2); --no-nuitka.
# What is measured, and how, is told in bench/packaging.py and docs/benchmarks.md.
set -euo pipefail
exec "${PYTHON:-python3.11}" "$(dirname "$0")/packaging.py" "$@"

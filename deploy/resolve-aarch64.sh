#!/usr/bin/env bash
# Asks pip whether the runtime set of a Jetson resolves to wheels for aarch64, without installing anything.
# JetPack 6 has Python 3.10 and CUDA 12, JetPack 7 has Python 3.12 and CUDA 13. PYTHON names another interpreter than python3.
set -euo pipefail
python=${PYTHON:-python3}
case $python in /*) ;; */*) python=$PWD/$python ;; esac
cd "$(dirname "$0")/jetson"

# pip compares these tags exactly: a wheel for manylinux_2_17 is not found by asking for manylinux_2_35 alone.
platforms=()
for tag in manylinux2014 manylinux_2_17 manylinux_2_24 manylinux_2_26 manylinux_2_27 manylinux_2_28 manylinux_2_31 manylinux_2_34 manylinux_2_35; do
  platforms+=(--platform "${tag}_aarch64")
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
report=$scratch/report.json
for pair in 3.10:cuda12 3.12:cuda13; do
  version=${pair%%:*} cuda=${pair##*:}
  echo "== Python $version, ${cuda/cuda/CUDA }, aarch64"
  "$python" -m pip install --disable-pip-version-check --quiet --quiet --dry-run --ignore-installed --target "$scratch" \
    --only-binary=:all: --implementation cp --python-version "$version" "${platforms[@]}" \
    --report "$report" --requirement requirements.txt --constraint "constraints-$cuda.txt"
  "$python" - "$report" <<'PY'
import json
import sys

items = json.load(open(sys.argv[1]))["install"]
names = sorted(f"{item['metadata']['name']} {item['metadata']['version']}" for item in items)
assert names, "pip resolved nothing"
print("  " + ", ".join(names))
PY
done

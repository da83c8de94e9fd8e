#!/usr/bin/env bash
# Tries a Jetson's runtime set on an emulated CPU: a Debian root for aarch64 under qemu-user. Needs root, debootstrap,
# qemu-user-static and its binfmt_misc registration. Takes half an hour. No GPU is emulated, and
# OpenVINO crashes under qemu-user: the network runs in ONNX Runtime, where `rtseg build` compares models, and nowhere else.
#
#   deploy/try-aarch64.sh FOLDER [WHEEL]        FOLDER is made; it is left behind, for looking at. WHEEL is built where none is named.
set -euo pipefail
folder=$(realpath -m "${1:?name a folder for the root}")
checkout=$(cd "$(dirname "$0")/.." && pwd)
wheel=${2:-}
if [ -z "$wheel" ]; then
  (cd / && "${PYTHON:-python3}" -m build --wheel --outdir "$folder.wheel" "$checkout") >/dev/null 2>&1
  wheel=$(ls "$folder.wheel"/rtseg-*.whl)
fi

in_root() { chroot "$folder" /usr/bin/env -i HOME=/root ${PIP_CERT:+PIP_CERT="$PIP_CERT"} PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
pip() { in_root /opt/rtseg/bin/pip install --quiet --quiet --disable-pip-version-check "$@"; }
step() { echo; echo "== $1"; }

step "debootstrap for aarch64"
[ -x "$folder/bin/bash" ] || debootstrap --arch=arm64 --variant=minbase bookworm "$folder" >/dev/null
mount --bind /proc "$folder/proc"
mount --bind /dev "$folder/dev"
trap 'umount "$folder/proc" "$folder/dev" 2>/dev/null || true' EXIT
in_root apt-get update -qq
in_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv ca-certificates >/dev/null 2>&1
in_root uname -m

step "the runtime set as wheels"
# This machine's own settings for pip, and the certificate they name, where it has any.
certificate=${PIP_CERT:-$("${PYTHON:-python3}" -m pip config get global.cert 2>/dev/null || true)}
for settings in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$certificate"; do
  if [ -r "$settings" ]; then install -D -m 644 "$settings" "$folder/${settings#/}"; fi
done
cp "$wheel" "$checkout"/deploy/jetson/*.txt "$folder/root/"
in_root python3 -m venv /opt/rtseg
pip --only-binary=:all: --requirement /root/requirements.txt --constraint /root/constraints-cuda12.txt
pip --no-deps --force-reinstall "/root/$(basename "$wheel")"
in_root /opt/rtseg/bin/python -c 'import av, cuda.bindings, cv2, numpy, onnx, onnxruntime, platform, typer
print("imports on", platform.machine(), "Python", platform.python_version())'

step "rtseg doctor"
in_root /opt/rtseg/bin/rtseg doctor || echo "exit $?"

step "rtseg build from ONNX"
in_root /opt/rtseg/bin/rtseg build nano --target onnx --size 96x64 -o /root/nano.onnx

step "decode, color, encode and compare, with thresholds in the model's place"
in_root /opt/rtseg/bin/python - <<'PY'
from rtseg.synthetic.video_file import write_video
from rtseg.video.verify import Recorder, compare
from rtseg.render.overlay import Overlay
from rtseg.core.palette import CAMVID_CLASSES, load_palette
from rtseg.pipeline.pipeline import run
from rtseg.io.outputs.video import VideoSink
from rtseg.io.inputs import open_source
from rtseg.core.stats import Stats
from rtseg.synthetic import SyntheticDrive

write_video(SyntheticDrive(160, 96, frames=10), "/root/drive.mp4")
source = open_source("/root/drive.mp4")
sink, recorder = VideoSink("/root/out.mp4", source.info, size=(160, 96)), Recorder(source.info)
overlay = Overlay(load_palette("street", CAMVID_CLASSES))
run(source, lambda frame: frame.planes[0][::2, ::2] // 24, overlay, [sink], Stats(CAMVID_CLASSES), observer=recorder)
report = compare(recorder, sink.finish(), corrupt=source.corrupt)
report.raise_if_broken()
sink.close()
print(report.to_dict()["line"])
PY
step "done"

#!/usr/bin/env bash
# Tries the wheel in a clean Debian root: no torch, no GPU, none of OpenCV's X libraries. Needs root and debootstrap; takes minutes.
#
#   deploy/try-clean-root.sh FOLDER [WHEEL]     FOLDER is made; it is left behind, for looking at. WHEEL is built where none is named.
set -euo pipefail
folder=$(realpath -m "${1:?name a folder for the root}")
checkout=$(cd "$(dirname "$0")/.." && pwd)
wheel=${2:-}
if [ -z "$wheel" ]; then
  (cd / && "${PYTHON:-python3}" -m build --wheel --outdir "$folder.wheel" "$checkout") >/dev/null
  wheel=$(ls "$folder.wheel"/rtseg-*.whl)
fi

in_root() { chroot "$folder" /usr/bin/env -i HOME="$HOME" ${PIP_CERT:+PIP_CERT="$PIP_CERT"} PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
step() { echo; echo "== $1"; }

step "debootstrap"
[ -x "$folder/bin/bash" ] || debootstrap --variant=minbase bookworm "$folder" >/dev/null
echo force-unsafe-io >"$folder/etc/dpkg/dpkg.cfg.d/try" # many small files: not each of them has to be on the disk at once
mount --bind /proc "$folder/proc"
mount --bind /dev "$folder/dev"
trap 'umount "$folder/proc" "$folder/dev" 2>/dev/null || true' EXIT
in_root apt-get update -qq
install_packages() { in_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; }
install_packages python3-venv ca-certificates

step "pip install, the wheel alone"
cp "$wheel" "$folder/root/"
# This machine's own settings for pip, and the certificate they name, where it has any.
certificate=${PIP_CERT:-$("${PYTHON:-python3}" -m pip config get global.cert 2>/dev/null || true)}
for settings in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$certificate"; do
  [ -r "$settings" ] && install -D -m 644 "$settings" "$folder/${settings#/}"
done
in_root python3 -m venv /opt/rtseg
in_root /opt/rtseg/bin/pip install --quiet --quiet --disable-pip-version-check "/root/$(basename "$wheel")"
in_root /opt/rtseg/bin/python -c 'import importlib.util as u; assert u.find_spec("torch") is None; print("no torch")'

step "rtseg doctor"
in_root /opt/rtseg/bin/rtseg doctor || echo "exit $?"

step "its remedy for OpenCV"
if ! in_root /opt/rtseg/bin/python -c 'import cv2' 2>/dev/null; then
  in_root /opt/rtseg/bin/rtseg demo -o /root/demo.mp4 || echo "exit $?: as it should be, in one line"
  in_root /opt/rtseg/bin/pip uninstall --quiet --yes opencv-python
  in_root /opt/rtseg/bin/pip install --quiet --quiet --disable-pip-version-check opencv-python-headless
fi

step "rtseg video"
in_root /opt/rtseg/bin/python - <<'PY'
from rtseg.synthetic.video_file import write_video
from rtseg.synthetic import SyntheticDrive
write_video(SyntheticDrive(320, 240, frames=30), "/root/drive.mp4")
PY
in_root /opt/rtseg/bin/rtseg video /root/drive.mp4 -o /root/out.mp4 --size 160x128

step "rtseg live --show web --gst"
in_root /opt/rtseg/bin/rtseg live --show none --gst videotestsrc || echo "exit $?: GStreamer is not there yet"
install_packages curl gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
  gstreamer1.0-plugins-ugly
in_root timeout -s INT 45 /opt/rtseg/bin/rtseg live --size 160x128 --show web --address 127.0.0.1:18099 \
  --gst 'videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=10/1' &
live=$!
for _ in $(seq 40); do
  sleep 1
  in_root curl -sf -m 5 http://127.0.0.1:18099/healthz && echo && break
done
in_root curl -sf -m 5 http://127.0.0.1:18099/snapshot.png -o /root/snapshot.png
in_root curl -sf -m 5 http://127.0.0.1:18099/metrics | grep -m 1 "^rtseg_shown_fps"
wait "$live" || [ $? = 124 ] # the exit code of timeout
step "done: $(head -c 8 "$folder/root/snapshot.png" | tail -c 7 | head -c 3) snapshot, $(stat -c %s "$folder/root/out.mp4") bytes of video"

#!/usr/bin/env bash
# Installs rtseg on a Jetson with JetPack 6 or 7: a virtual environment that sees JetPack's TensorRT, then `rtseg doctor`, then
# the engine. Nothing of JetPack is changed, nothing is installed outside the folder. Can be run again at any time.
#
#   deploy/jetson/install.sh [--prefix FOLDER] [--source WHEEL|FOLDER] [--model NAME] [--no-build]
#
#   --prefix   where the environment goes (default: $HOME/rtseg)
#   --source   what is installed: a wheel (default: this checkout)
#   --model    the model whose engine is built (default: the bundled model)
#   --no-build leave the engine for later: `rtseg build`
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prefix=${HOME:-/opt}/rtseg
source=$(cd "$here/../.." && pwd)
model=()
build=1
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=${2:?--prefix needs a folder}; shift 2 ;;
    --source) source=${2:?--source needs a wheel or folder}; shift 2 ;;
    --model) model=("${2:?--model needs a name}"); shift 2 ;;
    --no-build) build=0; shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "install.sh: no option '$1'; see --help" >&2; exit 2 ;;
  esac
done

fail() { echo "install.sh: $1" >&2; exit 1; }
step() { echo "== $1"; }

step "JetPack"
[ "$(uname -m)" = aarch64 ] || fail "this is $(uname -m), not a Jetson (aarch64); on a PC: pip install rtseg"
release=${RTSEG_L4T_RELEASE:-/etc/nv_tegra_release}
[ -r "$release" ] || fail "no $release: this board does not run Jetson Linux"
major=$(sed -n 's/^# R\([0-9]*\) .*/\1/p' "$release")
case $major in
  36) cuda=cuda12 ;; # JetPack 6
  38 | 39) cuda=cuda13 ;; # JetPack 7
  *) fail "Jetson Linux R${major:-?} is not known here; rtseg needs JetPack 6 (R36) or JetPack 7 (R38 or R39)" ;;
esac
echo "Jetson Linux R$major"

python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than Python 3.10"
"$python" -c 'import ensurepip' 2>/dev/null || fail "Python can't make environments: sudo apt-get install python3-venv"

step "TensorRT"
trt=$("$python" -c 'import pathlib, tensorrt; print(pathlib.Path(tensorrt.__file__).parent)' 2>/dev/null) \
  || fail "JetPack's TensorRT has no Python bindings here: sudo apt-get install python3-libnvinfer"
version=$("$python" -c 'import tensorrt; print(tensorrt.__version__)')
[ "$(printf '%s\n' 10.3 "$version" | sort -V | head -n 1)" = 10.3 ] || fail "TensorRT $version is too old; rtseg needs 10.3"
echo "TensorRT $version in $trt"

step "environment in $prefix"
[ -x "$prefix/bin/python" ] || "$python" -m venv "$prefix"
# Only TensorRT is taken from the system. Its NumPy and OpenCV stay out of sight: they are older than what rtseg needs.
packages=$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$trt" "$packages/tensorrt"
pip=("$prefix/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --requirement "$here/requirements.txt" --constraint "$here/constraints-$cuda.txt"
# Without its dependencies: OpenVINO is one of them, and has nothing to do where there is TensorRT.
"${pip[@]}" install --quiet --no-deps --force-reinstall "$source"

step "GStreamer"
if command -v gst-inspect-1.0 >/dev/null && gst-inspect-1.0 --exists gdppay; then
  for element in nvarguscamerasrc nvv4l2decoder nvvidconv nvv4l2h264enc; do
    gst-inspect-1.0 --exists "$element" && echo "$element" || echo "$element: not here"
  done
else
  echo "for CSI cameras and the hardware codecs: sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-{base,good,bad,ugly}"
fi

step "rtseg doctor"
"$prefix/bin/rtseg" doctor || fail "rtseg doctor found something that is broken; see above"

if [ "$build" = 1 ]; then
  step "engine: this takes minutes"
  "$prefix/bin/rtseg" build "${model[@]}"
fi
step "done: $prefix/bin/rtseg live --camera 0 --show web"

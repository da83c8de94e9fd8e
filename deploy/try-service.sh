#!/usr/bin/env bash
# Tries the service under a real systemd: a Debian guest in qemu, made of the root that try-clean-root.sh left. Needs root,
# qemu-system-x86 and mke2fs. Takes a quarter of an hour, or a few minutes with ACCEL=kvm on a machine whose KVM works. The output of the guest goes to standard output.
#
#   deploy/try-service.sh FOLDER
set -euo pipefail
folder=$(realpath "${1:?name the folder that try-clean-root.sh made}")
[ -x "$folder/opt/rtseg/bin/rtseg" ] || { echo "$folder holds no rtseg: run try-clean-root.sh first" >&2; exit 1; }

in_root() { chroot "$folder" /usr/bin/env -i HOME=/root DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
mount --bind /proc "$folder/proc"
mount --bind /dev "$folder/dev"
trap 'umount "$folder/proc" "$folder/dev" 2>/dev/null || true' EXIT
in_root apt-get install -y -qq --no-install-recommends systemd-sysv udev dbus linux-image-amd64 procps iproute2 >/dev/null 2>&1
umount "$folder/proc" "$folder/dev"

cat >"$folder/root/try.sh" <<'GUEST'
#!/bin/bash
# Runs in the guest.
export PATH=/opt/rtseg/bin:$PATH HOME=/root
unit() { systemctl show rtseg -P "$1"; }
until_active() { for _ in $(seq 900); do [ "$(unit ActiveState)" = active ] && return; sleep 1; done; echo "FAILED: not active"; systemctl status --no-pager rtseg; journalctl -u rtseg --no-pager | tail -n 30; }
ip link set lo up
echo "== systemd $(systemctl --version | head -n 1)"
if modprobe vivid; then sleep 2; ls -l /dev/video0; fi
echo "== install and start"
useradd --system --groups video,render rtseg
rtseg service --camera /dev/video0 --camera-size 320x180 --camera-fps 10 --model nano --size 96x64 --show web --record drive.mp4 --split-every 10 --keep 50MB >/etc/systemd/system/rtseg.service
mkdir -p /etc/systemd/system/rtseg.service.d
# An emulated CPU is slow; a crash prints a traceback.
printf '[Service]\nWatchdogSec=60\nEnvironment=PYTHONFAULTHANDLER=1\n' >/etc/systemd/system/rtseg.service.d/quick.conf
rtseg config check && systemd-analyze verify /etc/systemd/system/rtseg.service
systemctl daemon-reload; systemctl enable --now rtseg
until_active
sleep 15
echo "active as $(ps -o user= -p "$(unit MainPID)"): $(unit StatusText)"
/usr/bin/curl -s -m 5 http://127.0.0.1:8080/healthz; echo
/usr/bin/curl -s -m 5 http://127.0.0.1:8080/metrics | grep '^rtseg_connected\|^rtseg_capture_fps'
echo "== it may write to its own folders alone"
nsenter -t "$(unit MainPID)" -m /bin/touch /usr/written /etc/written /home/written 2>&1 | sed 's/^/  /'
ls -l /var/lib/rtseg/recordings
echo "== a crash: killed"
before=$(unit NRestarts); kill -KILL "$(unit MainPID)"; sleep 15; until_active
echo "restarts: $before, then $(unit NRestarts)"
echo "== a hang: stopped; the watchdog acts after 60 s"
sleep 5; before=$(unit NRestarts); kill -STOP "$(unit MainPID)"; sleep 80; until_active
echo "restarts: $before, then $(unit NRestarts)"; journalctl -u rtseg --no-pager | grep -i watchdog | tail -n 1
echo "== the camera goes and comes back"
sleep 10
if rmmod vivid 2>/dev/null; then :; else echo "vivid is in use: unbound instead"; echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind; fi
sleep 8; echo "gone: $(unit ActiveState), $(unit StatusText)"
modprobe vivid; [ -e /dev/video0 ] || echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
sleep 30; echo "back: $(unit ActiveState), $(unit StatusText)"
echo "== stop"
begin=$(date +%s); systemctl stop rtseg; echo "stopped in $(($(date +%s) - begin)) s: $(unit Result), exit $(unit ExecMainStatus)"
for file in /var/lib/rtseg/recordings/*.mp4; do
  /opt/rtseg/bin/python - "$file" <<'PY'
import os, sys, av
name, size = sys.argv[1].rsplit("/", 1)[1], os.path.getsize(sys.argv[1])
try:
    with av.open(sys.argv[1]) as c:
        print(" ", name, sum(1 for _ in c.decode(video=0)), "frames decode")
except av.InvalidDataError:
    print(" ", name, f"{size} bytes: killed before its first second was written" if size < 1000 else "UNREADABLE")
PY
done
systemd-analyze security rtseg --no-pager | tail -n 1
journalctl -u rtseg --no-pager -o cat | grep -A 25 'Fatal Python error' | head -n 90
journalctl -u rtseg --no-pager -o cat | tail -n 12
echo "== end of the guest"
systemctl poweroff
GUEST
chmod +x "$folder/root/try.sh"
cat >"$folder/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=simple
ExecStart=/root/try.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
UNIT
ln -sf ../try.service "$folder/etc/systemd/system/multi-user.target.wants/try.service"

image=$folder.ext4
rm -f "$image"
mke2fs -q -t ext4 -d "$folder" "$image" 6G
timeout 2400 qemu-system-x86_64 -accel "${ACCEL:-tcg}" -cpu max -m 3072 -smp 2 -nographic -no-reboot -monitor none \
  -kernel "$folder/vmlinuz" -initrd "$folder/initrd.img" \
  -append "root=/dev/vda rw console=ttyS0 quiet loglevel=1 systemd.show_status=0" \
  -drive "file=$image,format=raw,if=virtio,cache=unsafe" -nic none | stdbuf -oL tr -d '\r'

#!/usr/bin/env bash
# Test with a V4L2 device: boots Debian's kernel in qemu with this machine's files (read-only), loads the virtual camera
# driver `vivid`, and runs `rtseg live --camera 0`: list, capture, unplug, plug in again, end by a signal.
#
#     benchmarks/vivid_guest.sh /path/to/python > vivid.log
#
# Needs qemu-system-x86, busybox-static, cpio, kmod, and (downloaded by apt-get) Debian's kernel package. Uses KVM if available.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
python=${1:-$repository/.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kernel_package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
(cd "$work" && apt-get download "$kernel_package" 2>/dev/null && dpkg -x ./*.deb kernel)
version=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$version"

mkdir -p "$work"/root/{bin,modules,proc,sys,dev,host}
cp /bin/busybox "$work/root/bin/busybox"
for module in virtio_pci 9pnet_virtio 9p overlay vivid; do
  modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | awk '/^insmod/ { print $2 }'
done | awk '!seen[$0]++' > "$work/modules"
while read -r module; do cp "$module" "$work/root/modules/"; done < "$work/modules"
sed 's|.*/||' "$work/modules" > "$work/root/modules/order"

cat > "$work/root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in \$(cat /modules/order); do insmod /modules/\$module || echo "insmod \$module failed"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host || echo "no host files"
mount -t tmpfs tmpfs /host/tmp
for folder in proc sys dev; do mount --bind /\$folder /host/\$folder; done
mkdir -p /host/tmp/modules && cp /modules/vivid.ko /host/tmp/modules/
cp /test.py /host/tmp/test.py
ip link set lo up
chroot /host $python /tmp/test.py $repository
echo "GUEST EXIT \$?"
poweroff -f
INIT
chmod +x "$work/root/init"
cp benchmarks/vivid_guest.py "$work/root/test.py"
(cd "$work/root" && find . | cpio --quiet -o -H newc | gzip -1 > "$work/initramfs")

# Set KVM=0 where /dev/kvm exists but does not work, as in some virtual machines.
accelerator="-accel tcg -cpu max"
if [ -w /dev/kvm ] && [ "${KVM:-1}" = 1 ]; then accelerator="-accel kvm -cpu host"; fi
# shellcheck disable=SC2086
timeout "${GUEST_SECONDS:-1800}" qemu-system-x86_64 $accelerator -m 3072 -smp 2 -nographic -no-reboot -nic none \
  -kernel "$work/kernel/boot/vmlinuz-$version" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1" \
  -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"

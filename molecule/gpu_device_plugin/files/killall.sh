#!/bin/sh
# Ends the pods of a node whose service has stopped, and removes what it has made outside its folders.
pkill -9 -f 'containerd-shim-runc-v2.*k8s.io'
find /sys/fs/cgroup -path '*kubepods*' -name cgroup.procs -exec cat {} + | sort -u | grep -v '^0$' | xargs -r kill -9
sleep 1
while umount /proc/driver 2>/dev/null && grep -q ' /proc/driver ' /proc/mounts; do :; done
awk '{print $2}' /proc/mounts | grep -E '^(/run/k3s|/var/lib/kubelet/|/run/netns/cni-)' | sort -r | xargs -r umount -l
rm -f /run/netns/cni-*
find /var/lib/kubelet -mindepth 1 -delete
for link in cni0 flannel.1; do ip link delete "$link" 2>/dev/null; done
for table in filter nat mangle; do iptables -t "$table" -F; iptables -t "$table" -X; done
exit 0

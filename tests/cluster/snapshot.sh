#!/bin/bash
# What a host is, as lines that can be compared: files, mounts, interfaces, units, rules, users, packages.
set -u
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log/journal \
  -o -path /var/lib/apt/lists -o -path /var/cache -o -path /home/admin \) -prune -o -printf 'file %p %y %m %U:%G %l\n'
find /var/lib/rancher /var/lib/kubelet -mindepth 1 -printf 'file %p %y %m\n' 2>/dev/null
find /run -mindepth 1 \( -path /run/systemd -o -path /run/udev -o -path /run/user -o -path /run/lock -o -path /run/log \) \
  -prune -o -printf 'run %p %y\n'
awk '{print "mount " $2 " " $3}' /proc/mounts
ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/link \1/'
ip route | sed 's/^/route /'
systemctl list-unit-files --no-pager --no-legend | awk '{print "unit " $1 " " $2}'
systemctl list-units --state=active,failed --type=service --no-pager --no-legend --plain | awk '{print "service " $1 " " $3}'
for tool in iptables ip6tables; do "$tool-save" 2>/dev/null | grep -v '^#' | sed -E "s/\[[0-9:]+\]//; s/^/$tool /"; done
nft list tables 2>/dev/null | sed 's/^/nft /'
getent passwd | sed 's/^/user /'
getent group | sed 's/^/group /'
dpkg-query -W -f 'package ${Package} ${Version}\n'
sha256sum /etc/fstab /etc/nftables.conf /etc/sysctl.conf /etc/apt/sources.list 2>/dev/null | sed 's/^/content /'

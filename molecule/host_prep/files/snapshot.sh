#!/bin/sh
# Everything that the role may touch, a line each: files with modes and sums, rules, values of the kernel, units, limits.
find /etc /var/lib/heteroserve /run/heteroserve -type f ! -name '*.swp' -exec stat -c 'file %n %a %U' {} + 2>/dev/null
find /etc -type f -exec sha256sum {} + 2>/dev/null | sed 's/^/sum /'
find /etc /var/lib/heteroserve /run/heteroserve -type d 2>/dev/null | sed 's/^/folder /'
find /etc -type l -printf 'link %p %l\n'
nft list ruleset | sed 's/^/nft /'
for name in vm.panic_on_oom vm.overcommit_memory vm.nr_hugepages kernel.panic kernel.panic_on_oops kernel.keys.root_maxbytes \
  kernel.keys.root_maxkeys net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables fs.inotify.max_user_instances \
  fs.inotify.max_user_watches kernel.numa_balancing; do
  echo "sysctl $name $(sysctl -n "$name" 2>/dev/null)"
done
echo "thp $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
cut -d' ' -f1 /proc/swaps | sed 's/^/swap /'
systemctl list-unit-files --no-legend --plain | awk '{print "unit", $1, $2}'
systemctl show | grep -E '^DefaultLimit' | sed 's/^/limit /'
dpkg-query -W -f 'package ${Package} ${db:Status-Status}\n'

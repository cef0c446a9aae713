#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# For comparison: the same freeze as a shell script that runs nft. CRIU runs it
# with descriptor 0 closed; nsenter would then open the namespace's file as
# descriptor 0 and not enter the namespace, hence the first line.
exec 0</dev/null
in_ns() { nsenter -t "$CRTOOLS_INIT_PID" -n -- "$@"; }
case $CRTOOLS_SCRIPT_ACTION in
network-lock)
	in_ns nft -f - <<-'EOT'
	table inet freeze-by-script {
		chain prerouting {
			type filter hook prerouting priority raw
			meta mark 0xc114 accept
			icmpv6 type { 135, 136 } accept
			drop
		}
		chain output {
			type filter hook output priority raw
			meta mark 0xc114 accept
			icmpv6 type { 135, 136 } accept
			drop
		}
	}
	EOT
	;;
network-unlock)
	in_ns nft delete table inet freeze-by-script
	;;
esac

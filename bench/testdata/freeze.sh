#!/bin/sh
# The same freeze as a shell script that runs nft, for the comparison. CRIU runs
# it with descriptor 0 closed; nsenter would open the namespace's file as 0 and
# stay where it is, hence the first line.
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

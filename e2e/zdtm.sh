#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# CRIU's own tests as a witness: run the network and socket tests of a tree of CRIU's
# sources that you have built (make; make -C test/zdtm), once as they are and once with
# our action-script, and print what differs. Nothing of the tree is kept. The tests run
# in a network namespace of their own.
#
#	e2e/zdtm.sh TREE [REGEXP]
#
# The tests of CRIU's own lock (netns_lock_*) are left out: they want marked packets to get
# through between a dump and its restore, which our freeze does not allow.
#
# REGEXP chooses tests by name. Variables: HOOK (our action-script), CRIU (its
# executable), FLAVORS ("h ns"), TIMES (how often each test runs with the hook; 1).
# Exit code 1: a test passes without the hook, and fails with it.
set -eu

fail() { echo "zdtm.sh: $*" >&2; exit 2; }

if [ "${1:-}" = --help ] || [ $# -lt 1 ] || [ $# -gt 2 ]; then
	sed -n '3,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
	[ "${1:-}" = --help ] && exit 0 || exit 2
fi
tree=$(realpath "$1") wanted=${2:-'^(sock|sk-|tcp|netns|net_|unix|packet|conntracks|fifo_net|ipc_net)'}
hook=${HOOK:-/usr/local/libexec/criu-netfreeze/netfreeze-hook}
criu=${CRIU:-$tree/criu/criu}
[ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"
[ -x "$tree/test/zdtm.py" ] || fail "$tree has no test/zdtm.py: name a tree of CRIU's sources"
[ -x "$criu" ] || fail "$criu is missing: build the tree (make), or name another one in CRIU"
[ -x "$hook" ] || fail "$hook is missing: install criu-netfreeze, or name its hook in HOOK"
mapfile -t tests < <(find "$tree/test/zdtm/static" -maxdepth 1 -type f -perm /1 -printf '%f\n' | grep -E "$wanted" | grep -v ^netns_lock_ | sort)
[ ${#tests[@]} -gt 0 ] || fail "no built test matches $wanted: make -C $tree/test/zdtm"

if [ -z "${ZDTM_APART:-}" ]; then
	exec env ZDTM_APART=1 unshare --net --mount --propagation private "$0" "$@"
fi
ip link set lo up
mkdir -p /run/criu-netfreeze
mount -t tmpfs -o mode=0700 none /run/criu-netfreeze

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/criu" <<EOF
#!/bin/sh
case "\$1" in
dump | restore) exec $criu "\$@" --network-lock skip --action-script $hook ;;
esac
exec $criu "\$@"
EOF
chmod +x "$work/criu"

# run_test CRIU TEST FLAVOR: pass, fail, hang or skip.
run_test() {
	local out code=0
	out=$(cd "$tree/test" && timeout --kill-after=5 120 ./zdtm.py run --ignore-taint --criu-bin "$1" -t "zdtm/static/$2" -f "$3" 2>&1) || code=$?
	case "$code,$out" in
	124,* | 137,*) echo hang ;;
	0,*PASS*) echo pass ;;
	0,*) echo skip ;;
	*) echo fail ;;
	esac
}

worse=0 same=0 passes=0
printf '%-40s %-5s %-8s %s\n' TEST FLAVOR WITHOUT WITH
for test in "${tests[@]}"; do
	for flavor in ${FLAVORS:-h ns}; do
		without=$(run_test "$criu" "$test" "$flavor")
		[ "$without" != pass ] || passes=$((passes + 1))
		for _ in $(seq "${TIMES:-1}"); do
			with=$(run_test "$work/criu" "$test" "$flavor")
			if [ "$with" = "$without" ]; then
				same=$((same + 1))
				continue
			fi
			printf '%-40s %-5s %-8s %s\n' "$test" "$flavor" "$without" "$with"
			[ "$without" != pass ] || worse=$((worse + 1))
		done
	done
done
[ "$passes" -gt 0 ] || fail "no test passes even without the hook: try $tree/test/zdtm.py run -t zdtm/static/${tests[0]}"
echo "$passes tests pass without the hook; $same results are the same, $worse are worse with the hook"
[ "$worse" = 0 ]

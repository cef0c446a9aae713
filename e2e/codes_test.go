// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// TestCodes has commands fail in the ways that the troubleshooting page explains. Those
// that need a dump or a restore are in TestMisuse, TestLoggedCodes and beside what they are
// about.
func TestCodes(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"})
	topo := newTopology(t)
	ns := topo.newHost("app").netns
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		return path
	}
	if err := os.MkdirAll(filepath.Join(dir, "root/etc/criu"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("root/etc/criu/runc.conf", "# BEGIN netfreeze\n", 0o644)
	const records = "/run/criu-netfreeze"
	for _, tc := range []struct {
		name, command string // by a shell
		want          code.Code
	}{
		{"a bad flag", netfreeze + " freeze " + ns + " --ttl 1000h", code.Usage},
		{"a bad configuration", netfreeze + " config check " + write("bad.toml", "policy = \"hodl\"\n", 0o644), code.Config},
		{"nothing held", netfreeze + " kill nobody", code.Target},
		{"not root", "setpriv --reuid 65534 --regid 65534 --clear-groups " + netfreeze + " status", code.Root},
		{"not by CRIU", "env -i " + hook, code.NotByCRIU},
		{"a failing check", netfreeze + " doctor --root " + filepath.Join(dir, "root"), code.CheckFailed},
		{"no iptables", "exec unshare -m sh -c 'mount -t tmpfs none /usr/sbin && exec " + netfreeze + " freeze " + ns + " --backend iptables-legacy'", code.NoBackend},
		{"the host", netfreeze + " freeze 1", code.HostNetNS},
		{"no namespace", netfreeze + " freeze /etc/passwd", code.NetNSGone},
		{"no such name", netfreeze + " freeze /run/netns/nobody", code.NetNSGone},
		{"no process", netfreeze + " freeze 4000000", code.TaskGone},
		{"frozen: uninstall", netfreeze + " freeze " + ns + "; " + netfreeze + " uninstall; s=$?; " + netfreeze + " thaw " + ns + "; exit $s", code.AlreadyHeld},
		{"no images", netfreeze + " inspect " + dir, code.Images},
		{"an untrusted configuration", "exec unshare -m sh -c 'mount --bind " + write("open.toml", "", 0o666) + " /etc/criu/netfreeze.toml && exec " + netfreeze + " freeze " + ns + "'", code.Untrusted},
		{"a damaged record", "mkdir -p -m 700 " + records + "; echo x >" + records + "/7@7.json; " + netfreeze + " status; s=$?; rm " + records + "/7@7.json; exit $s", code.Record},
		{"a damaged block", netfreeze + " install --runtime runc --root " + filepath.Join(dir, "root"), code.InstallConflict},
		{"a bad path", netfreeze + " install --hook '/opt/a b' --root " + filepath.Join(dir, "root"), code.InstallPath},
		{"a full disk", "exec unshare -m sh -c 'mount -t tmpfs -o size=4k,mode=700 none " + records + " && head -c 4096 /dev/zero >" + records + "/full && exec " + netfreeze + " freeze " + ns + "'", code.NoSpace},
		{"a CRIU runs", "cp /bin/sleep " + dir + "/criu && { " + dir + "/criu 60 & } && " + netfreeze + " thaw --criu-leftovers " + ns + "; s=$?; kill $!; exit $s", code.CRIULock},
		{"no capability", "exec setpriv --bounding-set -net_admin --inh-caps -net_admin " + netfreeze + " freeze " + ns, code.Root},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			output, err := exec.CommandContext(ctx, "sh", "-c", tc.command).CombinedOutput()
			if err == nil || !strings.Contains(string(output), fmt.Sprintf("[%s]", tc.want)) {
				t.Errorf("%s: %v, printed %q, want %s in it", tc.command, err, output, tc.want)
			}
			noRecords(t, ns, "no CRIU")
		})
	}
}

// TestLoggedCodes has a dump and a restore come to nothing, which is said when CRIU has
// ended.
func TestLoggedCodes(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: "kill", log: log}, plainCRIU{})
	await := func(want code.Code) {
		t.Helper()
		poll(t, back, want.String()+" in the log", func() error {
			text, err := os.ReadFile(log)
			if err == nil && !strings.Contains(string(text), fmt.Sprintf("[%s]", want)) {
				err = fmt.Errorf("it says %s", text)
			}
			return err
		})
	}
	p := newPair(t, plainCRIU{}, true, few)
	if err := p.dumped.engine.dump(p.dumped, true, scripted(script(t, "post-dump", "exit 1"), true)...); err == nil {
		t.Fatal("the dump has not failed")
	}
	await(code.DumpFailed)
	p.failRestore()
	await(code.RestoreFailed)
}

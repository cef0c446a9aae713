//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const netfreezeOCI = "/usr/local/libexec/criu-netfreeze/netfreeze-oci"

// newHookedHost describes a host whose namespace the runtime makes, and that
// createRuntime hooks connect: ours first, as the README says, then one that
// does what the world does for a host, and that takes its time after that. The
// address is live then, and CRIU has not rebuilt a socket.
func newHookedHost(w *world, name string) *host {
	w.t.Helper()
	h := w.describeHost(name)
	attach := filepath.Join(w.t.TempDir(), "attach")
	script := fmt.Sprintf(`#!/bin/bash
set -e
pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')
ip -n %[1]s link add app-port type veth peer name %[2]s address %[3]s netns "$pid"
ip -n %[1]s link set app-port master br0 addrgenmode none up
nsenter --net="/proc/$pid/ns/net" ip -batch - <<EOT
link set lo up
link set %[2]s addrgenmode none
addr add %[4]s/24 dev %[2]s
addr add %[5]s/64 dev %[2]s nodad
link set %[2]s up
EOT
sleep %[6]g
`, w.sw, iface, h.mac, h.v4, h.v6, live.Seconds())
	if err := os.WriteFile(attach, []byte(script), 0o700); err != nil {
		w.t.Fatal(err)
	}
	h.hooks = &specs.Hooks{CreateRuntime: []specs.Hook{
		{Path: netfreezeOCI, Args: []string{"netfreeze-oci"}},
		{Path: attach, Args: []string{"attach"}, Env: []string{"PATH=" + os.Getenv("PATH")}},
	}}
	return h
}

// TestOCIHook restores with a runc that has CRIU make the network namespace, and
// hooks that connect it while CRIU waits.
func TestOCIHook(t *testing.T) {
	withSuite(t, settings{policy: "kill"}, runtimeEngine("runc"))
	for _, expected := range []bool{true, false} {
		t.Run(map[bool]string{true: "expected", false: "not expected"}[expected], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := &pair{app: newHookedHost(w, "app"), peer: w.newHost("peer")}
			runc := runtimeEngine("runc")
			p.server = serve(t, runc, p.app)
			p.dumped = p.server
			p.client = connect(t, plainCRIU{}, p.peer, p.app, everyMillisecond)
			p.progress(patience, time.Now())
			p.packets = startCapture(t, p.peer.netns, iface)
			p.from = time.Now()

			// The namespace goes with its last task; its interface shall go before.
			old, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.dumped.pid))
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			network := []string{"--empty-ns", "network"}
			p.dump(network...)
			p.dumped.gone()
			runc.remove(p.dumped)
			w.ip(w.sw, "link del app-port")
			if expected {
				expect(t, "--container", p.dumped.id)
			}
			err = runc.restore(p.dumped, network...)
			if !expected {
				seen := p.packets.since(p.from)
				if seen.rst == 0 {
					t.Error("no RST was captured")
				}
				t.Logf("%d RST at the peer, %d connections lost", seen.rst, p.client.broken())
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p.frozenAtBirth(fmt.Sprintf("/proc/%d/ns/net", p.dumped.pid))
		})
	}
}

// frozenAtBirth checks, after a restore into a namespace that the OCI hook was
// to freeze, that it did, that no connection has suffered, and that the freeze
// has ended.
func (p *pair) frozenAtBirth(netns string) {
	t := p.dumped.t
	t.Helper()
	if list := mustRun(t, "", "", netfreeze, "expect", "--list"); !strings.Contains(list, "netfreeze-oci") {
		t.Errorf("the hook froze nothing: %s", list)
	}
	p.progress(2*patience, time.Now())
	p.settle()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
	poll(t, patience, "end of the freeze", func() error {
		if s := status(t, netns); s != "" {
			return fmt.Errorf("its status is %s", s)
		}
		return nil
	})
}

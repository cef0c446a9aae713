// SPDX-License-Identifier: Apache-2.0

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

// newHookedHost describes a host whose namespace the runtime creates and whose
// createRuntime hooks connect it: first ours, as the README says, then one that
// does what topology.connect does and waits for a while after that. During the
// wait the address is live, and CRIU has not rebuilt any socket.
func newHookedHost(topo *topology, name string) *host {
	topo.t.Helper()
	h := topo.describeHost(name)
	attach := filepath.Join(topo.t.TempDir(), "attach")
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
`, topo.switchNetns, iface, h.mac, h.v4, h.v6, live.Seconds())
	if err := os.WriteFile(attach, []byte(script), 0o700); err != nil {
		topo.t.Fatal(err)
	}
	h.hooks = &specs.Hooks{CreateRuntime: []specs.Hook{
		{Path: netfreezeOCI, Args: []string{"netfreeze-oci"}},
		{Path: attach, Args: []string{"attach"}, Env: []string{"PATH=" + os.Getenv("PATH")}},
	}}
	return h
}

// TestOCIHook restores with a runc that has CRIU create the network namespace,
// and hooks that connect it while CRIU waits.
func TestOCIHook(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, runtimeEngine("runc"))
	for _, expected := range []bool{true, false} {
		t.Run(map[bool]string{true: "expected", false: "not expected"}[expected], func(t *testing.T) {
			t.Parallel()
			topo := newTopology(t)
			p := &pair{app: newHookedHost(topo, "app"), peer: topo.newHost("peer")}
			runc := runtimeEngine("runc")
			p.server = serve(t, runc, p.app)
			p.dumped = p.server
			p.client = connect(t, plainCRIU{}, p.peer, p.app, everyMillisecond)
			p.awaitTraffic(patience, time.Now())
			p.packets = startCapture(t, p.peer.netns, iface)
			p.from = time.Now()

			// The namespace would go with its last task; held open, it outlives its
			// interface.
			old, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.dumped.pid))
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			network := []string{"--empty-ns", "network"}
			p.dump(network...)
			p.dumped.awaitEnd()
			runc.remove(p.dumped)
			topo.ip(topo.switchNetns, "link del app-port")
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
// to freeze, that the hook did so, that every connection is unharmed, and that
// the freeze has ended.
func (p *pair) frozenAtBirth(netns string) {
	t := p.dumped.t
	t.Helper()
	if list := mustRun(t, "", "", netfreeze, "expect", "--list"); !strings.Contains(list, "netfreeze-oci") {
		t.Errorf("the hook has frozen nothing: %s", list)
	}
	p.awaitTraffic(2*patience, time.Now())
	p.checkAllBytes()
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

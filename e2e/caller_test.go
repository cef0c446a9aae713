// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// This file has what the engines share that are real callers of CRIU, each with a
// daemon of its own: containerd's CRI, ctr and docker. They make the containers'
// namespaces themselves, and connect them to a bridge in the lab's own namespace.

// plainRunc is the name under which this program is a runc that asks for no limits: the
// lab has a version 2 tree of control groups without controllers, and the daemons ask
// for some whatever they are told.
const plainRunc = "runc-without-limits"

// runPlainRunc takes the limits out of the bundle's configuration, and becomes runc.
func runPlainRunc() error {
	for i, arg := range os.Args[:len(os.Args)-1] {
		if arg != "--bundle" {
			continue
		}
		path := filepath.Join(os.Args[i+1], "config.json")
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var spec map[string]any
		if err := json.Unmarshal(text, &spec); err != nil {
			return err
		}
		if linux, ok := spec["linux"].(map[string]any); ok {
			delete(linux, "resources")
		}
		if text, err = json.Marshal(spec); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	const runc = "/usr/sbin/runc"
	return syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ())
}

// linkPlainRunc makes the link by which a daemon calls it, in a directory.
func linkPlainRunc(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, plainRunc)
	if err := os.Symlink(os.Args[0], path); err != nil {
		t.Fatal(err)
	}
	return path
}

// startDaemon starts a daemon that ends with the test, and waits until it is ready. The
// end of its log is shown if the test fails.
func startDaemon(t *testing.T, dir string, ready func() error, argv ...string) {
	t.Helper()
	name := filepath.Base(argv[0])
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := newCommand(context.Background(), "", argv...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
		}
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	poll(t, patience, name, func() error {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("%s has ended: %v: %s", name, err, text[max(0, len(text)-3000):])
		default:
		}
		return ready()
	})
}

// networkOf is the name of a topology's network at its daemon, of at most 8 characters.
func networkOf(topo *topology) string { return fmt.Sprintf("t%d", topo.n) }

// newCalledPair starts a server for a host by an engine that connects it to a bridge in
// the lab's own namespace, and a client on a peer that is connected to that bridge.
func newCalledPair(e engine, bridge string, app *host, kinds []string) *pair {
	topo := app.topo
	t := topo.t
	t.Helper()
	p := &pair{app: app, peer: topo.describeHost("peer")}
	p.server = serve(t, e, p.app)
	p.peer.netns = topo.newNetns("peer")
	port := fmt.Sprintf("t%d-port", topo.n)
	topo.ip("", fmt.Sprintf("link add %s type veth peer name %s address %s netns %s", port, iface, p.peer.mac, p.peer.netns),
		fmt.Sprintf("link set %s master %s up", port, bridge))
	topo.ip(p.peer.netns,
		fmt.Sprintf("addr add %s/24 dev %s", p.peer.v4, iface), fmt.Sprintf("addr add %s/64 dev %s nodad", p.peer.v6, iface),
		"link set "+iface+" up")
	p.client = connect(t, plainCRIU{}, p.peer, p.app, kinds)
	p.dumped = p.server
	p.awaitTraffic(patience, time.Now())
	p.packets = startCapture(t, p.peer.netns, iface)
	p.from = time.Now()
	return p
}

// restoreThere has the caller restore the dumped task where it wants to, and checks that
// every connection goes on in both directions, that not a byte is missing, and that the
// peer has seen neither FIN nor RST.
func (p *pair) restoreThere() {
	t := p.dumped.t
	t.Helper()
	if err := p.dumped.engine.restore(p.dumped); err != nil {
		t.Fatalf("restore: %v", err)
	}
	p.awaitBoth(time.Now())
	p.checkAllBytes()
	if err := p.packets.since(p.from).stray(); err != nil {
		t.Error(err)
	}
}

// bothWays is the time within which each direction of a connection goes on after a thaw.
const bothWays = 2 * time.Second

// awaitBoth waits until the server, and the client, has received something on every
// connection on which it ever has.
func (p *pair) awaitBoth(after time.Time) {
	t := p.dumped.t
	t.Helper()
	for name, k := range map[string]*task{"server": p.server, "client": p.client} {
		poll(t, bothWays-time.Since(after), "traffic to the "+name, func() error {
			for _, s := range k.stats.Snapshots() {
				if s.Received > 0 && s.LastAt <= after.UnixNano() {
					return fmt.Errorf("nothing has come on connection %d (port %d)", s.ID, s.LocalPort)
				}
			}
			return k.healthy()
		})
	}
}

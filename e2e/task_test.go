// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// task is a traffic program that an engine runs on a host.
type task struct {
	t      *testing.T
	engine engine
	id     string // container id, for the runtimes that have one
	host   *host
	dir    string // on the lab's tmpfs; the images are below it
	pid    int    // of the root task, in the lab's pid namespace
	stats  *stats.File

	annotations map[string]string // of a container
}

// data is the path, outside the container, of a file that the program writes:
// its statistics or its log.
func (k *task) data(name string) string { return filepath.Join(k.dir, "root", "data", name) }

// images is the directory of the dump.
func (k *task) images() string { return filepath.Join(k.dir, "images") }

// newTask starts a traffic program. When newTask returns, the program is running
// and its counters are open. It is removed at the end of the test.
func newTask(t *testing.T, e engine, h *host, args ...string) *task {
	t.Helper()
	return newAnnotatedTask(t, e, h, nil, args...)
}

// newAnnotatedTask is newTask with OCI annotations.
func newAnnotatedTask(t *testing.T, e engine, h *host, annotations map[string]string, args ...string) *task {
	t.Helper()
	k := &task{t: t, engine: e, host: h, dir: t.TempDir(), annotations: annotations}
	k.id = fmt.Sprintf("t%d-%s-%s", h.topo.n, h.name, e)
	for _, dir := range []string{k.images(), filepath.Dir(k.data("x"))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Registered first, and so called after everything below has been cleaned up.
	t.Cleanup(k.logFailure)
	e.start(k, args)
	t.Cleanup(func() { e.remove(k) })
	poll(t, patience, k.id+" to start", func() (err error) {
		k.stats, err = stats.Open(k.data("stats"))
		return err
	})
	t.Cleanup(func() { _ = k.stats.Close() })
	return k
}

func serve(t *testing.T, e engine, h *host, options ...string) *task {
	t.Helper()
	return newTask(t, e, h, append([]string{
		"serve", "--listen", fmt.Sprintf("%s:%d", h.v4, h.port), "--listen", fmt.Sprintf("[%s]:%d", h.v6, h.port),
	}, options...)...)
}

// connect starts a client that opens connections to a server's host, each kind
// over IPv4 and over IPv6.
func connect(t *testing.T, e engine, h, to *host, kinds []string, options ...string) *task {
	t.Helper()
	args := []string{"connect", "--peer", fmt.Sprintf("%s:%d", to.v4, to.port), "--peer", fmt.Sprintf("[%s]:%d", to.v6, to.port)}
	for _, kind := range kinds {
		args = append(args, "--conn", kind)
	}
	return newTask(t, e, h, append(args, options...)...)
}

// signal sends a signal to the program.
func (k *task) signal(s syscall.Signal) {
	k.t.Helper()
	if err := syscall.Kill(k.pid, s); err != nil {
		k.t.Errorf("signal %s to %s: %v", s, k.id, err)
	}
}

// logFailure logs what the task and CRIU have logged, if the test has failed.
func (k *task) logFailure() {
	if !k.t.Failed() {
		return
	}
	if log, err := os.ReadFile(k.data("log")); err == nil {
		lines := strings.SplitAfterN(string(log), "\n", 6)
		k.t.Logf("log of %s:\n%s", k.id, strings.Join(lines[:min(5, len(lines))], ""))
	}
	for _, name := range []string{"dump.log", "restore.log"} {
		if excerpt := logExcerpt(filepath.Join(k.images(), name)); excerpt != "" {
			k.t.Logf("%s of %s:\n%s", name, k.id, excerpt)
		}
	}
}

// healthy returns an error that describes what is wrong with a task's
// connections, nil if nothing is.
func (k *task) healthy() error {
	for _, s := range k.stats.Snapshots() {
		if s.State != stats.Established || s.Lost+s.Doubled+s.Corrupt+s.Errors > 0 {
			return fmt.Errorf("%s: connection %d (ports %d, %d) is %s: %d bytes lost, %d doubled, %d corrupt, %d errors",
				k.id, s.ID, s.LocalPort, s.RemotePort, s.State, s.Lost, s.Doubled, s.Corrupt, s.Errors)
		}
	}
	return nil
}

// broken counts the connections of a task that have ended.
func (k *task) broken() (n int) {
	for _, s := range k.stats.Snapshots() {
		if s.State == stats.Broken {
			n++
		}
	}
	return n
}

// endpoints are the two programs that a test watches.
type endpoints struct{ server, client *task }

// awaitTraffic waits until every connection is healthy and has carried traffic,
// in either direction, after the given time.
func (ends endpoints) awaitTraffic(limit time.Duration, after time.Time) {
	t := ends.client.t
	t.Helper()
	poll(t, limit, "traffic on every connection", func() error {
		if err := ends.healthy(); err != nil {
			return err
		}
		last := map[uint64]int64{}
		for _, s := range ends.server.stats.Snapshots() {
			last[s.ID] = s.LastAt
		}
		conns := ends.client.stats.Snapshots()
		if len(conns) == 0 {
			return fmt.Errorf("there is no connection yet")
		}
		for _, s := range conns {
			if max(s.LastAt, last[s.ID]) <= after.UnixNano() {
				return fmt.Errorf("connection %d (port %d) is silent", s.ID, s.LocalPort)
			}
		}
		return nil
	})
}

func (ends endpoints) healthy() error {
	if err := ends.server.healthy(); err != nil {
		return err
	}
	return ends.client.healthy()
}

// checkAllBytes has both sides stop sending, and checks that every byte that
// was sent in the whole life of each connection has arrived.
func (ends endpoints) checkAllBytes() {
	t := ends.client.t
	t.Helper()
	ends.server.signal(syscall.SIGUSR1)
	ends.client.signal(syscall.SIGUSR1)
	poll(t, patience, "arrival of every byte", func() error {
		if err := ends.healthy(); err != nil {
			return err
		}
		// By connection number: two connections may have the same port, one over
		// IPv4 and one over IPv6.
		servers := map[uint64]stats.Snapshot{}
		for _, s := range ends.server.stats.Snapshots() {
			servers[s.ID] = s
		}
		for _, c := range ends.client.stats.Snapshots() {
			if c.Kind == stats.KindUDP {
				continue // datagrams may be lost
			}
			s, ok := servers[c.ID]
			if !ok || c.Sent != s.Received || s.Sent != c.Received {
				return fmt.Errorf("connection %d: client sent %d, server received %d; server sent %d, client received %d",
					c.ID, c.Sent, s.Received, s.Sent, c.Received)
			}
		}
		return nil
	})
}

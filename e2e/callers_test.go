// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// caller is a way to have containers dumped and restored.
type caller struct {
	name string
	// open starts what the caller needs; what it returns makes a pair on a topology of
	// its own, with a server that the caller runs.
	open func(t *testing.T) func(topo *topology) *pair
	// leaves says that the caller cannot have CRIU end the tasks.
	leaves bool
	// before prepares the restore of what has ended, if there is more to do than to
	// remove the old container.
	before func(p *pair)
}

// engineOn is the open of an engine that is given its network namespace.
func engineOn(e engine) func(t *testing.T) func(topo *topology) *pair {
	return func(*testing.T) func(topo *topology) *pair {
		return func(topo *topology) *pair {
			p := &pair{app: topo.newHost("app"), peer: topo.newHost("peer")}
			p.start(topo.t, e, true, everyMillisecond)
			return p
		}
	}
}

// callers are all that the suite is tested with.
var callers = []caller{
	{name: "criu", open: engineOn(plainCRIU{})},
	{name: "criu swrk", open: engineOn(swrkCRIU{})},
	{name: "criu service", open: func(t *testing.T) func(topo *topology) *pair {
		return func(topo *topology) *pair { // it reads its configuration when it starts
			return engineOn(startService(topo.t))(topo.t)(topo)
		}
	}},
	{name: "criu-ns", open: engineOn(nsCRIU{})},
	{name: "runc", open: engineOn(runtimeEngine("runc"))},
	{name: "crun", open: engineOn(runtimeEngine("crun"))},
	{name: "as CRI-O does with runc", open: engineOn(&crioEngine{runtimeEngine: "runc"}), leaves: true},
	{name: "as CRI-O does with crun", open: engineOn(&crioEngine{runtimeEngine: "crun"}), leaves: true},
	{name: "containerd by CRI", open: func(t *testing.T) func(topo *topology) *pair {
		c := newContainerd(t)
		return func(topo *topology) *pair {
			h := topo.describeHost("app")
			return newCalledPair(newCRI(c), c.network(h), h, everyMillisecond)
		}
	}, leaves: true, before: func(p *pair) {
		e := p.dumped.engine.(*criEngine)
		e.remove(p.dumped)
		expect(p.dumped.t, "--pod", e.pod(p.dumped))
	}},
	{name: "containerd by ctr", open: func(t *testing.T) func(topo *topology) *pair { return engineOn(ctrEngine{newContainerd(t)})(t) }, leaves: true},
	{name: "docker", open: func(t *testing.T) func(topo *topology) *pair {
		e := newDocker(t)
		return func(topo *topology) *pair {
			return newCalledPair(e, e.network(topo), topo.describeHost("app"), everyMillisecond)
		}
	}, before: func(p *pair) { p.dumped.engine.(*dockerEngine).stopped(p.dumped) }},
	{name: "podman", open: func(t *testing.T) func(topo *topology) *pair {
		return func(topo *topology) *pair {
			e := newPodman(topo, false)
			p := newCalledPair(e, e.bridge, topo.describeHost("app"), everyMillisecond)
			guard(topo.t, "", p.app)
			return p
		}
	}, before: func(p *pair) {
		poll(p.dumped.t, patience, "podman to see the end", func() error {
			state, err := p.dumped.engine.(*podmanEngine).run("inspect", "--format", "{{.State.Status}}", p.dumped.id)
			if err == nil && strings.TrimSpace(state) != "exited" {
				err = fmt.Errorf("it is %s", state)
			}
			return err
		})
	}},
}

// course is what happens to a container by one policy, until its connections go on.
type course struct {
	name   string
	policy string
	ends   bool // the container, which has to be restored
	run    func(p *pair)
}

var courses = []course{
	{"run", "run", false, func(p *pair) { p.dump() }},
	{"isolate then thaw", "isolate", false, func(p *pair) {
		p.dump()
		mustRun(p.dumped.t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
	}},
	{"hold then thaw", "hold", false, func(p *pair) { p.holdAndThaw() }},
	{"hold then kill", "hold", true, func(p *pair) { p.holdAndKill() }},
	{"kill", "kill", true, func(p *pair) {
		p.dump()
		p.dumped.awaitEnd()
	}},
	{endedByCRIU, "hold", true, func(p *pair) {
		if err := p.dumped.engine.dump(p.dumped, false); err != nil {
			p.dumped.t.Fatal(err)
		}
		p.dumped.awaitEnd()
	}},
}

const endedByCRIU = "ended by CRIU"

// outcome is a cell of the matrix.
type outcome struct {
	conns, lost, fin, rst int
	frozen, resumed       time.Duration
}

// matrix is what has become of the connections, by caller and course, and back end.
type matrix struct {
	rows  [][2]string
	cells map[[2]string]map[string]outcome
}

func (m *matrix) add(caller, course, backend string, o outcome) {
	row := [2]string{caller, course}
	if m.cells == nil {
		m.cells = map[[2]string]map[string]outcome{}
	}
	if m.cells[row] == nil {
		m.cells[row] = map[string]outcome{}
		m.rows = append(m.rows, row)
	}
	m.cells[row][backend] = o
}

// String returns the matrix as a table in Markdown. A cell has the connections that
// survived, the time from network-lock to post-dump, and how long after the thaw the
// last direction of the last connection went on.
func (m *matrix) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 1, ' ', 0)
	row := func(cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, "\t| ")) }
	row(append([]string{"caller", "policy"}, append(backends, "FIN", "RST")...)...)
	row(slices.Repeat([]string{"---"}, len(backends)+4)...)
	for _, r := range m.rows {
		line, fin, rst := []string{r[0], r[1]}, 0, 0
		for _, backend := range backends {
			o, ok := m.cells[r][backend]
			if !ok {
				line = append(line, "failed")
				continue
			}
			line = append(line, fmt.Sprintf("%d of %d, %d ms, %d ms", o.conns-o.lost, o.conns, o.frozen.Milliseconds(), o.resumed.Milliseconds()))
			fin, rst = fin+o.fin, rst+o.rst
		}
		row(append(line, fmt.Sprint(fin), fmt.Sprint(rst))...)
	}
	_ = w.Flush()
	return b.String()
}

var backends = []string{"nftables", "iptables-nft", "iptables-legacy"}

// TestCallers has every caller dump and restore by every policy, and with every back
// end, and prints what has become of the connections: both directions of each must go
// on within a moment of the thaw.
func TestCallers(t *testing.T) {
	var table matrix
	for _, c := range callers {
		t.Run(c.name, func(t *testing.T) {
			withoutNetfreeze(t)
			next := c.open(t)
			for _, how := range courses {
				for _, backend := range backends {
					if how.name == endedByCRIU && c.leaves {
						continue
					}
					t.Run(how.name+" "+backend, func(t *testing.T) {
						o := c.try(t, next, how, backend)
						table.add(c.name, how.name, backend, o)
						if o.lost+o.fin+o.rst > 0 {
							t.Errorf("%+v", o)
						}
					})
				}
			}
		})
	}
	text := table.String()
	t.Logf("the matrix:\n%s", text)
	keep(t, "callers.md", text)
}

// try goes through one course.
func (c *caller) try(t *testing.T, next func(topo *topology) *pair, how course, backend string) outcome {
	log := filepath.Join(t.TempDir(), "log")
	withNetfreeze(t, settings{policy: how.policy, backend: backend, log: log}, c.reads()...)
	p := next(newTopology(t))
	p.from = time.Now()
	how.run(p)
	if how.ends {
		if c.before != nil {
			c.before(p)
		} else {
			p.dumped.engine.remove(p.dumped)
		}
		if err := p.dumped.engine.restore(p.dumped); err != nil {
			t.Fatalf("restore: %v", err)
		}
	}
	thawed := time.Now()
	p.awaitBoth(thawed)
	o := outcome{
		conns: len(p.client.stats.Snapshots()), resumed: time.Since(thawed),
		frozen: logged(t, log, "post-dump: the images").Sub(logged(t, log, "network-lock: frozen")),
	}
	p.checkAllBytes()
	seen := p.packets.since(p.from)
	o.lost, o.fin, o.rst = p.client.broken(), seen.fin, seen.rst
	return o
}

// reads are the engines whose configuration files the caller's CRIU reads. Both runtimes
// have one, so that neither falls back to the other's.
func (c *caller) reads() []engine {
	if strings.HasPrefix(c.name, "criu") {
		return []engine{plainCRIU{}}
	}
	return []engine{runtimeEngine("runc"), runtimeEngine("crun")}
}

// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSplit moves a task with the four scripts listed one by one.
func TestSplit(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", install: []string{"--split"}})
	forEngines(t, func(t *testing.T, e engine) {
		newPair(t, e, true, few).moveAway()
	})
}

// TestOverrides selects the policy per container: by its id, by its pod, and by
// an annotation.
func TestOverrides(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill", more: `
annotations = true

[[container]]
id = "*-byid-*"
policy = "hold"

[[container]]
pod = "shop/db-*"
policy = "isolate"
ttl = "90s"
`}, engines[1:]...)
	for _, test := range []struct {
		host, pod, annotation string
		policy, state         string
	}{
		{host: "byid", policy: "hold", state: "held"},
		{host: "bypod", pod: "shop/db-0", policy: "isolate", state: "isolated"},
		{host: "other", pod: "shop/web-0", policy: "kill", state: "ended"},
		{host: "byname", pod: "shop/db-1", annotation: "hold", policy: "hold", state: "held"},
	} {
		for _, e := range engines[1:] { // plain criu has no containers
			t.Run(test.host+"/"+e.String(), func(t *testing.T) {
				t.Parallel()
				topo := newTopology(t)
				app := topo.newHost(test.host)
				annotations := map[string]string{}
				if ns, name, ok := strings.Cut(test.pod, "/"); ok {
					annotations["io.kubernetes.pod.namespace"], annotations["io.kubernetes.pod.name"] = ns, name
				}
				if test.annotation != "" {
					annotations["io.criu.netfreeze.policy"] = test.annotation
				}
				k := newAnnotatedTask(t, e, app, annotations, "serve", "--listen", fmt.Sprintf("%s:%d", app.v4, app.port))
				for _, target := range []string{k.id, fmt.Sprint(k.pid)} { // beforehand
					said := mustRun(t, "", "", netfreeze, "policy", target, "-o", "json")
					for _, want := range []string{fmt.Sprintf("%q: %q", "policy", test.policy), k.id, test.pod} {
						if !strings.Contains(said, want) {
							t.Errorf("netfreeze policy %s lacks %s: %s", target, want, said)
						}
					}
				}
				if err := e.dump(k, true); err != nil {
					t.Fatalf("dump: %v", err)
				}
				poll(t, patience, "the policy to be applied", func() error {
					s := status(t, app.netns)
					for _, want := range []string{
						fmt.Sprintf("%q: %q", "policy", test.policy), fmt.Sprintf("%q: %q", "state", test.state),
						fmt.Sprintf("%q: %q", "container", k.id), test.pod,
					} {
						if !strings.Contains(s, want) {
							return fmt.Errorf("%s is missing in the status: %s", want, s)
						}
					}
					return nil
				})
				mustRun(t, "", "", netfreeze, "thaw", app.netns)
				if s := status(t, app.netns); s != "" {
					t.Errorf("after the thaw the status is %s", s)
				}
			})
		}
	}
}

// TestDrain dumps while there are connections that the application has not
// accepted yet. Without a drain CRIU fails on them; with one the dump waits until
// they have been accepted.
func TestDrain(t *testing.T) {
	const late = 300 * time.Millisecond
	for _, test := range []struct {
		drain string
		works bool
	}{{"0s", false}, {"20ms", false}, {"10s", true}} {
		t.Run(test.drain, func(t *testing.T) {
			withNetfreeze(t, settings{policy: "run", more: fmt.Sprintf("drain = %q", test.drain)}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			p.server.busyAccepting(t, p, late)
			err := p.dumped.engine.dump(p.dumped, true)
			if test.works && err != nil {
				t.Errorf("dump: %v", err)
			}
			if !test.works && (err == nil || !strings.Contains(err.Error(), "In-flight") || test.drain != "0s" && !strings.Contains(err.Error(), "[NF406]")) {
				t.Errorf("the dump should have failed because of connections in flight: %v", err)
			}
			p.awaitTraffic(patience, time.Now())
			awaitRelease(t, back, p.app.netns, p.rules)
		})
	}
}

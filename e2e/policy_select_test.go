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
	withSuite(t, settings{policy: "kill", install: []string{"--split"}})
	forEngines(t, func(t *testing.T, e engine) {
		newPair(t, e, true, few).moveAway()
	})
}

// TestOverrides lets the policy be chosen per container: by its id, by its pod,
// and by an annotation.
func TestOverrides(t *testing.T) {
	withSuite(t, settings{policy: "kill", more: `
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
		for _, e := range engines[1:] { // a plain criu knows no container
			t.Run(test.host+"/"+e.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				app := w.newHost(test.host)
				annotations := map[string]string{}
				if ns, name, ok := strings.Cut(test.pod, "/"); ok {
					annotations["io.kubernetes.pod.namespace"], annotations["io.kubernetes.pod.name"] = ns, name
				}
				if test.annotation != "" {
					annotations["io.criu.netfreeze.policy"] = test.annotation
				}
				k := newAnnotated(t, e, app, annotations, "serve", "--listen", fmt.Sprintf("%s:%d", app.v4, app.port))
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
							return fmt.Errorf("the status lacks %s: %s", want, s)
						}
					}
					return nil
				})
				mustRun(t, "", "", netfreeze, "thaw", app.netns)
				if s := status(t, app.netns); s != "" {
					t.Errorf("after the thaw: %s", s)
				}
			})
		}
	}
}

// TestDrain dumps while the application has yet to accept connections. Without
// a drain CRIU fails on them; with one the dump waits until they are accepted.
func TestDrain(t *testing.T) {
	const late = 300 * time.Millisecond
	for _, test := range []struct {
		drain string
		works bool
	}{{"0s", false}, {"10s", true}} {
		t.Run(test.drain, func(t *testing.T) {
			withSuite(t, settings{policy: "run", more: fmt.Sprintf("drain = %q", test.drain)}, plainCRIU{})
			p := newPair(t, plainCRIU{}, true, few)
			p.server.busyAccepting(t, p, late)
			err := p.dumped.engine.dump(p.dumped, true)
			if test.works && err != nil {
				t.Errorf("dump: %v", err)
			}
			if !test.works && (err == nil || !strings.Contains(err.Error(), "In-flight")) {
				t.Errorf("the dump should fail on connections in flight: %v", err)
			}
			p.progress(patience, time.Now())
			released(t, back, p.app.netns, p.rules)
		})
	}
}

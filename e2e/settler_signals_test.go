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
)

// TestSettlerSignals sends to the settler, while CRIU dumps, what a service manager
// sends to all processes of a unit that it stops, and what terminals and shells send.
// The settler outlives it: the hold is applied, and a thaw gives everything back.
func TestSettlerSignals(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"}, plainCRIU{})
	// After the last action no other settler would be started in its place.
	for _, action := range []string{"pre-dump", "post-dump", "network-unlock"} {
		t.Run(action, func(t *testing.T) {
			p := newPair(t, plainCRIU{}, true, few)
			seen := filepath.Join(t.TempDir(), "settlers")
			// The same process is there before and after the signals.
			// Those of other transactions may still look after a hold.
			do := fmt.Sprintf(`settler() { grep -alE "$PPID[@]" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3; }
settler >> %[1]s
for s in TERM HUP INT QUIT USR1 USR2 PIPE ALRM ABRT TSTP TTIN TTOU CONT TERM; do kill -$s $(settler); done
sleep 0.1; settler >> %[1]s; kill -TERM $(settler)`, seen)
			p.dump(scripted(script(t, action, do), true)...)
			pids, err := os.ReadFile(seen)
			if err != nil {
				t.Fatal(err)
			}
			if f := strings.Fields(string(pids)); len(f) != 2 || f[0] != f[1] {
				t.Errorf("the settler was and is process %q", f)
			}
			p.dumped.awaitStop()
			poll(t, patience, "hold", func() error {
				if s := status(t, p.app.netns); !strings.Contains(s, `"held"`) {
					return fmt.Errorf("netfreeze status reports %q", s)
				}
				return nil
			})
			held := p.dumped.stats.Ticks()
			time.Sleep(live)
			if now := p.dumped.stats.Ticks(); now != held {
				t.Errorf("the held task has ticked %d times", now-held)
			}
			mustRun(t, "", "", netfreeze, "thaw", fmt.Sprint(p.dumped.pid))
			p.checkUnharmed(time.Now())
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// script makes an executable shell script and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700))
	return path
}

// breakRestores are ways in which a program that applies rules can fail. Each
// returns a shell script for the path of the working program.
var breakRestores = map[string]func(working string) string{
	"always": func(string) string { return "exit 1" },
	"all but removing": func(working string) string {
		return `lines=$(cat); case $lines in *"-X "*) echo "$lines" | ` + working + ` "$@";; *) exit 1;; esac`
	},
}

// TestRearmFails makes sure that everything stays frozen if freezing again fails,
// for one IP family or for both.
func TestRearmFails(t *testing.T) {
	t.Parallel()
	conn4, conn6 := tuple("127.0.0.1:1", "127.0.0.1:2"), tuple("[::1]:1", "[::1]:2")
	for _, k := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
		for how, script4 := range breakRestores {
			for _, families := range [][]int{{1}, {0, 1}} {
				t.Run(string(k)+"/"+how, func(t *testing.T) {
					t.Parallel()
					ns := nstest.New(t)
					l := mustDial(t, ns, serve(t, ns, "127.0.0.1"))
					f, c := open(t, ns, k).(*iptFreezer), openConns(t, ns, k, "x").(*iptConns)
					must(t, f.Freeze(time.Hour))
					must(t, c.Freeze([]tcp.Tuple{conn4, conn6}, time.Hour))
					for _, i := range families {
						broken := script(t, script4(f.tools[i].restore))
						f.tools[i].restore, c.tools[i].restore = broken, broken
					}
					if err := f.Freeze(2 * time.Hour); err == nil {
						t.Error("a freeze that cannot work succeeded")
					}
					if err := f.Prepare(0); err == nil {
						t.Error("a preparation that cannot work succeeded")
					}
					if err := c.Freeze([]tcp.Tuple{tuple("127.0.0.1:3", "127.0.0.1:4")}, 2*time.Hour); err == nil {
						t.Error("a freeze of connections that cannot work succeeded")
					}
					l.stuck(t)
					st, err := Look(ns)
					must(t, err)
					if st.Backend != k || !st.Frozen || st.Left < time.Hour-time.Minute || st.Left > time.Hour+time.Second {
						t.Errorf("Look: %+v, want a freeze by %s for an hour", st, k)
					}
					frozen, _, err := c.Frozen()
					must(t, err)
					if now := tcp.SetOf(frozen); !now.Has(conn4) || !now.Has(conn6) {
						t.Errorf("of the connections, %v are frozen", frozen)
					}
				})
			}
		}
	}
}

// TestFreezeFailsOnce lets a program fail once. The second attempt must not thaw the
// namespace in order to freeze it again.
func TestFreezeFailsOnce(t *testing.T) {
	t.Parallel()
	for _, k := range []backend.Kind{backend.IPTablesNFT, backend.IPTablesLegacy} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			f := open(t, ns, k).(*iptFreezer)
			must(t, f.Freeze(time.Minute))
			log := filepath.Join(t.TempDir(), "log")
			f.tools[0].restore = script(t, `lines=$(cat); first=$(test -e `+log+` || echo yes)
echo "$lines" >> `+log+`; test -z "$first" && echo "$lines" | `+f.tools[0].restore+` "$@"`)
			must(t, f.Freeze(time.Hour))
			st, err := f.State()
			must(t, err)
			checkState(t, "State", st, State{Backend: k, Frozen: true, Left: time.Hour})
			did, err := os.ReadFile(log)
			must(t, err)
			if strings.Contains(string(did), "-X") || strings.Contains(string(did), "-F") {
				t.Errorf("it was thawed in between:\n%s", did)
			}
		})
	}
}

// hurry gives programs little time to run, until the end of the test.
func hurry(t *testing.T) {
	t.Helper()
	program, visit := programTime, visitTime
	t.Cleanup(func() { programTime, visitTime = program, visit })
	programTime, visitTime = 300*time.Millisecond, time.Second
}

// inTime fails the test unless fn soon returns an error that says its time was over.
func inTime(t *testing.T, what string, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s does not end", what)
	}
}

// TestProgramHangs runs programs that never end, one of each kind.
func TestProgramHangs(t *testing.T) {
	hang := script(t, "exec /bin/sleep 60")
	ns := nstest.Isolated(t)
	f := open(t, ns.Namespace, backend.IPTablesLegacy).(*iptFreezer)
	must(t, f.Freeze(time.Minute))

	hurry(t)
	f.tools[0].restore = hang
	inTime(t, "a freeze by a program that hangs", func() error { return f.Freeze(time.Hour) })
	st, err := f.State()
	must(t, err)
	checkState(t, "State", st, State{Backend: backend.IPTablesLegacy, Frozen: true, Left: time.Minute})

	dir := t.TempDir()
	for _, name := range []string{"iptables", "iptables-restore", "iptables-legacy", "iptables-legacy-restore"} {
		must(t, os.Symlink(hang, filepath.Join(dir, name)))
	}
	t.Setenv("PATH", dir)
	for _, k := range []backend.Kind{backend.IPTables, backend.IPTablesLegacy} {
		inTime(t, "finding out what "+string(k)+" is", func() error {
			_, err := Open(ns, k)
			return err
		})
	}
}

// TestListHangs lets a program hang that go-iptables runs.
func TestListHangs(t *testing.T) {
	ns := nstest.Isolated(t)
	working, err := lookPath("iptables-legacy")
	must(t, err)
	dir := t.TempDir()
	hang := script(t, `case "$1" in --version) exec `+working+` --version;; *) exec /bin/sleep 60;; esac`)
	must(t, os.Symlink(hang, filepath.Join(dir, "iptables-legacy")))
	t.Setenv("PATH", dir)
	f, err := Open(ns, backend.IPTablesLegacy)
	must(t, err)
	hurry(t)
	inTime(t, "reading the rules by a program that hangs", func() error {
		_, err := f.State()
		return err
	})
}

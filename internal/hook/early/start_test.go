// SPDX-License-Identifier: Apache-2.0

//go:build linux

package early_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// beside links the script into a directory of its own, with a shell script as its
// settler.
func (s script) beside(t *testing.T, settler string) (script, string) {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.path = filepath.Join(dir, "netfreeze-hook")
	if err := os.WriteFile(s.path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if settler != "" {
		text := "#!/bin/sh\nbegan=$PWD\ncd " + dir + "\n" + settler
		if err := os.WriteFile(filepath.Join(dir, action.Settler), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s, dir
}

// TestStart has the first action start a settler.
func TestStart(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		var opened [2]int
		for i, early := range []bool{true, false} {
			hook, dir := runnable(t, arch, early).beside(t, `
echo "$began" >directory; echo "$0 $*" >arguments; env >variables; ls -l /proc/self/fd >files; echo $$ >pid; cut -d" " -f6 /proc/$$/stat >session
touch asked; while ! test -e there; do sleep 0.01; done
printf ok >&3; exec 3>&-; sleep 0.1
`)
			threads := make(chan int, 1)
			go func() {
				for {
					if _, err := os.Stat(filepath.Join(dir, "asked")); err == nil {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
				l := listen(t)
				_ = l.SetDeadline(time.Now().Add(10 * time.Second))
				_ = os.WriteFile(filepath.Join(dir, "there"), nil, 0o600)
				c, err := l.AcceptUnix()
				if err != nil {
					threads <- 0
					return
				}
				defer c.Close()
				_, _ = c.Read(make([]byte, action.MaxMessage))
				threads <- countThreads(c)
				_, _ = c.Write([]byte("Lone\n"))
				_, _ = c.Write([]byte("E0"))
				_ = l.Close()
			}()
			said, code := hook.run(t, "/x/netfreeze-hook", nil, "CRTOOLS_SCRIPT_ACTION=pre-dump", "CRTOOLS_IMAGE_DIR=/x", "A=b")
			if said != "one\n" || code != 0 {
				t.Errorf("early %v: exit code %d, %q", early, code, said)
			}
			only := 1
			if hook.emulator != "" {
				only = 2
			}
			if n := <-threads; n == 0 || (n <= only) != early {
				t.Errorf("early %v: asked by a program with %d threads", early, n)
			}
			read := func(name string) string {
				data, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
				}
				return string(data)
			}
			if got := strings.Fields(read("arguments")); len(got) != 3 || got[0] != filepath.Join(dir, action.Settler) ||
				!strings.Contains(got[1], "@") || got[2] != "pre-dump" {
				t.Errorf("early %v: its arguments are %q", early, got)
			}
			if got := read("directory"); got != "/\n" {
				t.Errorf("early %v: it keeps the directory %q", early, got)
			}
			if got := read("variables"); !strings.Contains(got, action.SettlerPath+"\n") || strings.Contains(got, "CRTOOLS") || strings.Contains(got, "A=b") {
				t.Errorf("early %v: its environment is %q", early, got)
			}
			for fd, want := range map[string]string{"0": "/dev/null", "2": "/dev/null", "3": "pipe:"} {
				if files := read("files"); !strings.Contains(files, " "+fd+" -> "+want) {
					t.Errorf("early %v: descriptor %s is not %s: %s", early, fd, want, files)
				}
			}
			opened[i] = strings.Count(read("files"), " -> ")
			if session := strings.TrimSpace(read("session")); session != strings.TrimSpace(read("pid")) {
				t.Errorf("early %v: it is in the session %s", early, session)
			}
		}
		if opened[0] != opened[1] {
			t.Errorf("it has %d descriptors if it is started early, and else %d", opened[0], opened[1])
		}
	})
}

// TestStartFails compares what is said when no settler can be started.
func TestStartFails(t *testing.T) {
	eachArch(t, func(t *testing.T, arch string) {
		for name, settler := range map[string]string{
			"none":         "",
			"ends":         "exit 0\n",
			"says why not": "printf 'start the settler: no [NF101]' >&3\n",
			"no program":   "\x00",
		} {
			var said [2]string
			for i, early := range []bool{true, false} {
				hook, dir := runnable(t, arch, early).beside(t, settler)
				if name == "no program" {
					if err := os.WriteFile(filepath.Join(dir, action.Settler), []byte("nonsense"), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				text, code := hook.run(t, "netfreeze-hook", nil, "CRTOOLS_SCRIPT_ACTION=pre-restore", "CRTOOLS_IMAGE_DIR=/x")
				if code != 1 {
					t.Errorf("%s, early %v: exit code %d", name, early, code)
				}
				said[i] = strings.ReplaceAll(text, dir, "DIR")
			}
			if said[0] != said[1] || !strings.Contains(said[0], "[NF") || strings.Count(said[0], "\n") != 1 {
				t.Errorf("%s: %q, want %q", name, said[0], said[1])
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

func TestEnvironment(t *testing.T) {
	criu := proc.Ref{PID: 42, Start: 7}
	for _, tc := range []struct {
		name, pid, dir string
		wantPID        int
		pidErr, dirErr string
	}{
		{name: "as CRIU sets it", pid: "1234", dir: "/proc/42/fd/1021", wantPID: 1234},
		{name: "nothing", pidErr: "is not set", dirErr: "is not set"},
		{name: "no number", pid: "12x", dir: "/proc/42/fd/x", pidErr: "not a process id", dirErr: "does not belong"},
		{name: "no process", pid: "0", dir: "/proc/43/fd/1", pidErr: "not a process id", dirErr: "does not belong"},
		{name: "negative", pid: "-1", dir: "/proc/42/fd/../../1/root", pidErr: "not a process id", dirErr: "does not belong"},
	} {
		req := action.Request{InitPID: tc.pid, ImageDir: tc.dir}
		pid, err := rootPID(req)
		if pid != tc.wantPID || !fits(err, tc.pidErr) {
			t.Errorf("%s: pid %d, %v", tc.name, pid, err)
		}
		if _, err := imageDir(req, criu); !fits(err, tc.dirErr) {
			t.Errorf("%s: image directory: %v", tc.name, err)
		}
	}
}

// TestServiceImages finds the image directory of a worker of criu service, whose
// CRTOOLS_IMAGE_DIR names the daemon and no descriptor.
func TestServiceImages(t *testing.T) {
	dir := func(inventory bool, age time.Duration) *os.File {
		dir := t.TempDir()
		if inventory {
			path := filepath.Join(dir, "inventory.img")
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-age)))
		}
		f, err := os.Open(dir)
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	start := func(dirs ...*os.File) (worker proc.Ref, daemon int) {
		cmd := exec.Command("sh", "-c", "sleep 3600 & echo $!; wait")
		cmd.ExtraFiles = dirs
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = fmt.Fscan(out, &worker.PID)
		must(t, err)
		t.Cleanup(func() {
			_ = syscall.Kill(worker.PID, syscall.SIGKILL)
			_ = cmd.Wait()
		})
		return worker, cmd.Process.Pid
	}
	worker, daemon := start(dir(false, 0))
	req := action.Request{ImageDir: fmt.Sprintf("/proc/%d/fd/-1", daemon)}
	must(t, checkCaller(req, worker))
	if dir, err := imageDir(req, worker); !fits(err, "has images") || err == nil {
		t.Errorf("no images: %q, %v", dir, err)
	}
	if err := checkCaller(action.Request{ImageDir: fmt.Sprintf("/proc/%d/fd/-1", worker.PID)}, worker); !fits(err, "does not belong") || err == nil {
		t.Errorf("of the worker itself: %v", err)
	}
	want := dir(true, 0)
	worker, daemon = start(dir(true, time.Hour), want, dir(false, 0)) // the first is of a former dump
	got, err := imageDir(action.Request{ImageDir: fmt.Sprintf("/proc/%d/fd/-1", daemon)}, worker)
	must(t, err)
	if real, err := os.Readlink(got); err != nil || real != want.Name() {
		t.Errorf("found %s, %v, want %s", real, err, want.Name())
	}
}

func fits(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return err != nil && strings.Contains(err.Error(), want)
}

// FuzzEnvironment gives the parsers of CRIU's environment whatever there is. What
// they accept must be what they say.
func FuzzEnvironment(f *testing.F) {
	f.Add("/proc/42/fd/7", "99")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, images, root string) {
		req := action.Request{ImageDir: images, InitPID: root}
		if pid, err := rootPID(req); err == nil && pid <= 0 {
			t.Errorf("accepted pid %d", pid)
		}
		dir, err := imageDir(req, proc.Ref{PID: 42})
		if err == nil && (!strings.HasPrefix(dir, "/proc/42/fd/") || strings.Contains(dir, "..")) {
			t.Errorf("accepted image directory %q", dir)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, tc := range []struct{ line, join, inherit string }{
		{"criu restore --join-ns net:/run/netns/x", "/run/netns/x", ""},
		{"criu restore --join-ns=net:4711 --join-ns uts:/x", "4711", ""},
		{"criu restore -J net:x", "x", ""},
		{"criu restore --inherit-fd fd[33]:extRootNetNS", "", "33"},
		{"criu restore --inherit-fd=fd[33]:other --inherit-fd fd[34]:extRootNetNS", "", "34"},
		{"criu restore --inherit-fd fd[x]:extRootNetNS", "", ""},
		{"criu restore --inherit-fd", "", ""},
		{"criu swrk 3", "", ""},
	} {
		args := strings.Fields(tc.line)
		if got := joinNS(args); got != tc.join {
			t.Errorf("%q: join-ns %q, want %q", tc.line, got, tc.join)
		}
		if got := inheritedFD(args, "extRootNetNS"); got != tc.inherit {
			t.Errorf("%q: inherit-fd %q, want %q", tc.line, got, tc.inherit)
		}
	}
}

func TestOwner(t *testing.T) {
	a, b := ownerOf("1@2"), ownerOf("1@3")
	if a == b || a != ownerOf("1@2") || len(a) > 12 {
		t.Errorf("owners %q and %q", a, b)
	}
}

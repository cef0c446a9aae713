// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/hooks"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// FuzzRequest promises that what the parser of requests accepts is what was sent.
func FuzzRequest(f *testing.F) {
	f.Add(action.Request{Script: "netfreeze-hook", Action: "pre-dump", ImageDir: "/proc/42/fd/7", InitPID: "99"}.String())
	f.Add("1\x00\x00\x00\x00")
	f.Add("")
	f.Fuzz(func(t *testing.T, message string) {
		if req, err := parseRequest(message); err == nil && req.String() != message {
			t.Errorf("%q became %q", message, req)
		}
	})
}

// TestVersions refuses the request of another version's script.
func TestVersions(t *testing.T) {
	if _, err := parseRequest("0\x00netfreeze-hook\x00pre-dump\x00\x00"); err == nil || !strings.Contains(err.Error(), code.Versions.String()) {
		t.Errorf("got %v", err)
	}
}

// transaction is one that counts what is asked of it.
type transaction struct {
	hooks.Transaction
	settled int
}

func (*transaction) Finished() bool  { return false }
func (*transaction) Polls() bool     { return false }
func (*transaction) Concluded() bool { return false }
func (t *transaction) Settle() error { t.settled++; return nil }

// TestAcceptFails has a socket on which nothing can be taken: the settler says so a
// few times a second, not as often as it can, and settles when CRIU has ended.
func TestAcceptFails(t *testing.T) {
	criu := exec.Command("sleep", "0.5")
	if err := criu.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Open(criu.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	go criu.Wait()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var said bytes.Buffer
	log := logrus.New()
	log.SetOutput(&said)
	tx := &transaction{}
	s := &settler{env: &hooks.Env{CRIU: p, Log: log}, sock: fd, tx: tx} // it does not listen, so accept fails
	done := make(chan error, 1)
	go func() { done <- s.loop() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the settler does not end")
	}
	if tx.settled != 1 {
		t.Errorf("settled %d times", tx.settled)
	}
	if n := strings.Count(said.String(), "take an action"); n < 1 || n > 20 {
		t.Errorf("%d complaints in half a second", n)
	}
}

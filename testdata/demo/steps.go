package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/crit"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/testdata/traffic/stats"
)

// netnsKey is the name that the images know the server's namespace by.
const netnsKey = "extRootNetNS"

// dump dumps the server and leaves it running, as its caller wants it.
func (a *act) dump() error {
	var ns unix.Stat_t
	if err := unix.Stat(netnsPath(a.app.netns), &ns); err != nil {
		return fmt.Errorf("look at the server's namespace: %w", err)
	}
	a.screen.line(plain, "criu dump --leave-running")
	err := a.criu(nil, "dump", "--tree", fmt.Sprint(a.server.pid), "--leave-running",
		"--external", fmt.Sprintf("net[%d]:%s", ns.Ino, netnsKey))
	if err != nil {
		return err
	}
	figures, err := crit.GetDumpStats(a.dir)
	if err != nil {
		return fmt.Errorf("read CRIU's figures of the dump: %w", err)
	}
	a.figures.frozen = time.Duration(figures.GetFrozenTime()) * time.Microsecond
	a.screen.line(plain, "dumped; CRIU kept the server frozen for %.1f ms", a.figures.frozen.Seconds()*1000)
	return nil
}

// criu runs the criu command on the act's images. An error tells what CRIU's
// own log has to say.
func (a *act) criu(inherited *os.File, action string, options ...string) error {
	log := action + ".log"
	options = append([]string{action, "--images-dir", a.dir, "--log-file", log, "-v4", "--tcp-established"}, options...)
	cmd := exec.Command("criu", options...)
	if inherited != nil {
		cmd.ExtraFiles = []*os.File{inherited}
	}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	said, _ := os.ReadFile(filepath.Join(a.dir, log))
	var errs []string
	for line := range strings.Lines(string(said)) {
		if strings.Contains(line, "Error") {
			errs = append(errs, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("criu %s: %w: %s", action, err, strings.Join(errs[max(0, len(errs)-2):], "; "))
}

// stop ends the server as an orchestrator does that has its checkpoint. With
// the suite the policy has done so, without a word to the peer.
func (a *act) stop() error {
	if a.cutFirst {
		a.screen.line(plain, "the server's link is cut, so that nobody hears how it ends")
		if err := a.app.disconnect(); err != nil {
			return err
		}
	}
	if a.suite {
		if err := a.server.gone(); err != nil {
			return err
		}
		a.screen.line(plain, "the suite has ended the server silently, and keeps its namespace frozen")
	} else {
		a.screen.line(plain, "the orchestrator stops the server: SIGKILL")
		if err := errors.Join(a.server.signal(syscall.SIGKILL), a.server.gone()); err != nil {
			return err
		}
	}
	a.beforeStop = a.server.stats.Snapshots()
	a.wait(500 * time.Millisecond)
	return nil
}

// deleteOld removes the interface first, as CNI's DEL does, and the namespace
// then. When a namespace goes with its interface still inside, the kernel takes
// its netfilter hooks away (pre_exit) tens of milliseconds before the device:
// for that long no freeze of any kind holds, and a busy peer gets its RST from
// a namespace that is about to die.
func (a *act) deleteOld() error {
	if !a.cutFirst {
		if err := a.app.disconnect(); err != nil {
			return err
		}
	}
	a.screen.line(plain, "the old network namespace is deleted, its interface first")
	return removeNetns(a.app.netns)
}

// connectNew puts the host's MAC and addresses into a fresh namespace, and lets
// it be on the network for a while.
func (a *act) connectNew() error {
	a.app.netns = "restored"
	if err := newNetns(a.app.netns); err != nil {
		return err
	}
	if a.suite {
		said, err := command("", netfreeze, "freeze", a.app.netns)
		if err != nil {
			return err
		}
		a.screen.line(plain, "netfreeze freeze %s: %s", a.app.netns, said)
	}
	if err := a.app.connect(); err != nil {
		return err
	}
	a.screen.line(plain, "a fresh namespace has the server's MAC and addresses, live from now on")
	a.wait(live)
	return nil
}

// restore brings the server back. Without the suite it need not succeed.
func (a *act) restore() error {
	ns, err := os.Open(netnsPath(a.app.netns))
	if err != nil {
		return fmt.Errorf("open the fresh namespace: %w", err)
	}
	defer ns.Close()
	a.screen.line(plain, "criu restore")
	err = a.criu(ns, "restore", "--restore-detached", "--inherit-fd", "fd[3]:"+netnsKey)
	a.thawed = time.Now()
	switch {
	case err == nil:
		a.screen.line(plain, "restored: the server runs again")
	case a.suite:
		return err
	default:
		a.screen.line(alarm, "%v", err)
	}
	if a.suite {
		a.thawed, err = thawTime()
	}
	return err
}

var thawed = regexp.MustCompile(`(?m)^(\S+) .* info: thawed`)

// thawTime takes from the suite's log when it lifted the freeze.
func thawTime() (time.Time, error) {
	log, err := os.ReadFile(logFile)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the suite's log: %w", err)
	}
	found := thawed.FindSubmatch(log)
	if found == nil {
		return time.Time{}, fmt.Errorf("the suite's log tells of no thaw:\n%s", log)
	}
	return time.Parse(time.RFC3339Nano, string(found[1]))
}

// goOn lets the connections run, takes their figures, and has both sides stop
// sending, so that every byte that was sent has either come or is lost.
func (a *act) goOn() error {
	a.wait(1500 * time.Millisecond)
	f := &a.figures
	f.living = a.client.living()
	for _, c := range a.client.stats.Snapshots() {
		if c.State == stats.Broken {
			continue
		}
		f.silence = max(f.silence, time.Duration(c.Silence))
		if first := time.Unix(0, c.SilenceEnd).Sub(a.thawed); first > 0 {
			f.firstByte = max(f.firstByte, first)
		}
	}
	if err := errors.Join(a.server.signal(syscall.SIGUSR1), a.client.signal(syscall.SIGUSR1)); err != nil {
		return err
	}
	// What is lost is lost: that is for the verdict to say.
	_ = poll(func() error {
		f.count(a.client.stats.Snapshots(), a.server.stats.Snapshots(), a.beforeStop)
		if f.living > 0 && f.lost > 0 {
			return errors.New("bytes are on their way")
		}
		return nil
	})
	if err := a.capture.finish(); err != nil {
		return err
	}
	f.fin, f.rst = a.capture.fin, a.capture.rst
	return nil
}

// SPDX-License-Identifier: Apache-2.0

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

// netnsKey is the name of the server's external network namespace in the images.
const netnsKey = "extRootNetNS"

// dump dumps the server with leave-running.
func (a *act) dump() error {
	var ns unix.Stat_t
	if err := unix.Stat(netnsPath(a.app.netns), &ns); err != nil {
		return fmt.Errorf("stat the server's namespace: %w", err)
	}
	a.screen.line(plain, "criu dump --leave-running")
	err := a.criu(nil, "dump", "--tree", fmt.Sprint(a.server.pid), "--leave-running",
		"--external", fmt.Sprintf("net[%d]:%s", ns.Ino, netnsKey))
	if err != nil {
		return err
	}
	figures, err := crit.GetDumpStats(a.dir)
	if err != nil {
		return fmt.Errorf("read CRIU's statistics of the dump: %w", err)
	}
	a.figures.frozen = time.Duration(figures.GetFrozenTime()) * time.Microsecond
	a.screen.line(plain, "dumped; CRIU kept the server frozen for %.1f ms", a.figures.frozen.Seconds()*1000)
	return nil
}

// criu runs the criu command on the act's images. An error includes the last
// errors in CRIU's own log.
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
	output, _ := os.ReadFile(filepath.Join(a.dir, log))
	var errs []string
	for line := range strings.Lines(string(output)) {
		if strings.Contains(line, "Error") {
			errs = append(errs, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("criu %s: %w: %s", action, err, strings.Join(errs[max(0, len(errs)-2):], "; "))
}

// stop ends the server, as an orchestrator does once it has its checkpoint. With
// criu-netfreeze the policy does so, without a packet to the peer.
func (a *act) stop() error {
	if a.cutFirst {
		a.screen.line(plain, "the server's link is cut, so that nothing of its end reaches the client")
		if err := a.app.disconnect(); err != nil {
			return err
		}
	}
	if a.withNetfreeze {
		if err := a.server.gone(); err != nil {
			return err
		}
		a.screen.line(plain, "criu-netfreeze has ended the server silently, and keeps its namespace frozen")
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

// deleteOld removes first the interface, as CNI's DEL does, and then the
// namespace. When a namespace is removed with its interface still inside, the
// kernel unregisters its netfilter hooks (pre_exit) tens of milliseconds before
// it removes the device: in between no freeze of any kind works, and a busy peer
// gets an RST from a namespace that is about to disappear.
func (a *act) deleteOld() error {
	if !a.cutFirst {
		if err := a.app.disconnect(); err != nil {
			return err
		}
	}
	a.screen.line(plain, "the old network namespace is deleted, its interface first")
	return removeNetns(a.app.netns)
}

// connectNew gives the host's MAC and IP addresses to a new namespace, and leaves
// it on the network for a while.
func (a *act) connectNew() error {
	a.app.netns = "restored"
	if err := newNetns(a.app.netns); err != nil {
		return err
	}
	if a.withNetfreeze {
		output, err := command("", netfreeze, "freeze", a.app.netns)
		if err != nil {
			return err
		}
		a.screen.line(plain, "netfreeze freeze %s: %s", a.app.netns, output)
	}
	if err := a.app.connect(); err != nil {
		return err
	}
	a.screen.line(plain, "a new namespace has the server's MAC and IP addresses, live from now on")
	a.wait(live)
	return nil
}

// restore restores the server. Without criu-netfreeze this may fail.
func (a *act) restore() error {
	ns, err := os.Open(netnsPath(a.app.netns))
	if err != nil {
		return fmt.Errorf("open the new namespace: %w", err)
	}
	defer ns.Close()
	a.screen.line(plain, "criu restore")
	err = a.criu(ns, "restore", "--restore-detached", "--inherit-fd", "fd[3]:"+netnsKey)
	a.thawed = time.Now()
	switch {
	case err == nil:
		a.screen.line(plain, "restored: the server runs again")
	case a.withNetfreeze:
		return err
	default:
		a.screen.line(alarm, "%v", err)
	}
	if a.withNetfreeze {
		a.thawed, err = thawTime()
	}
	return err
}

var thawed = regexp.MustCompile(`(?m)^(\S+) .* info: thawed`)

// thawTime returns when the freeze was lifted, according to criu-netfreeze's log.
func thawTime() (time.Time, error) {
	log, err := os.ReadFile(logFile)
	if err != nil {
		return time.Time{}, fmt.Errorf("read criu-netfreeze's log: %w", err)
	}
	found := thawed.FindSubmatch(log)
	if found == nil {
		return time.Time{}, fmt.Errorf("criu-netfreeze's log does not mention a thaw:\n%s", log)
	}
	return time.Parse(time.RFC3339Nano, string(found[1]))
}

// continueTraffic lets the connections carry traffic, takes their figures, and
// has both sides stop sending, so that every byte that was sent has either
// arrived or been lost.
func (a *act) continueTraffic() error {
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
	// If bytes stay missing, the verdict says so.
	_ = poll(func() error {
		f.count(a.client.stats.Snapshots(), a.server.stats.Snapshots(), a.beforeStop)
		if f.living > 0 && f.lost > 0 {
			return errors.New("some bytes have not arrived yet")
		}
		return nil
	})
	if err := a.capture.finish(); err != nil {
		return err
	}
	f.fin, f.rst = a.capture.fin, a.capture.rst
	return nil
}

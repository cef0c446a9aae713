// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit"
)

// variant is one way to lock the network during a dump.
type variant struct {
	name    string
	lock    string   // CRIU's --network-lock
	scripts []string // in the order in which they are listed
	policy  string   // netfreeze's policy, if the hook is among the scripts
	ends    bool     // CRIU ends the tree itself, as it does unless told to leave it running
}

// helper returns the action-scripts of a variant with one helper program.
func helper(name string) []string { return []string{filepath.Join(built, name)} }

// splitScripts returns the four scripts that "netfreeze install --split" lists.
func splitScripts() (all []string) {
	for _, s := range []string{"pre-dump", "post-dump", "pre-restore", "post-resume"} {
		all = append(all, filepath.Join(libexec, s))
	}
	return all
}

// netnsKey is the name of the external network namespace in the images.
const netnsKey = "extRootNetNS"

// args returns the options that dump and restore have in common. CRIU's own
// configuration files are not read; netfreeze.toml is.
func (v variant) args(verb, dir string) []string {
	args := []string{
		"criu", verb, "--no-default-config", "-D", dir, "-o", verb + ".log", "-v1",
		"--tcp-established", "--network-lock", v.lock,
	}
	for _, s := range v.scripts {
		args = append(args, "--action-script", s)
	}
	return args
}

// dump dumps the tree, and leaves it running unless the variant says otherwise. It
// returns CRIU's frozen_time in milliseconds.
func (l *load) dump(v variant) (float64, error) {
	if err := os.RemoveAll(l.dir); err != nil {
		return 0, err
	}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return 0, err
	}
	args := append(v.args("dump", l.dir), "-t", fmt.Sprint(l.pid))
	if !v.ends {
		args = append(args, "--leave-running")
	}
	if l.app.name != "" {
		args = append(args, "--external", fmt.Sprintf("net[%d]:%s", l.app.ID().Ino, netnsKey))
	}
	if _, err := command(args...); err != nil {
		return 0, l.withLog(err, "dump.log")
	}
	stats, err := crit.GetDumpStats(l.dir)
	if err != nil {
		return 0, fmt.Errorf("read CRIU's stats: %w", err)
	}
	return float64(stats.GetFrozenTime()) / 1000, nil
}

// restore restores the tree into the namespace that it came from.
func (l *load) restore(v variant) error {
	ns, err := os.Open("/run/netns/" + l.app.name)
	if err != nil {
		return err
	}
	defer ns.Close()
	args := append(v.args("restore", l.dir), "-d", "--inherit-fd", "fd[3]:"+netnsKey)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.ExtraFiles = []*os.File{ns}
	if out, err := cmd.CombinedOutput(); err != nil {
		return l.withLog(fmt.Errorf("criu restore: %w: %s", err, out), "restore.log")
	}
	return nil
}

// withLog adds the last lines of CRIU's log to an error.
func (l *load) withLog(err error, name string) error {
	log, _ := os.ReadFile(filepath.Join(l.dir, name))
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("%w\n%s", err, strings.Join(lines[max(0, len(lines)-8):], "\n"))
}

// awaitSettled waits until no settler is left, so that the next dump has the
// machine to itself, and undoes a hold.
func (l *load) awaitSettled(v variant) error {
	if err := waitUntil("settlement", func() bool {
		socks, _ := filepath.Glob("/run/criu-netfreeze/*.sock")
		return len(socks) == 0
	}); err != nil {
		return err
	}
	if v.policy != "hold" {
		return nil
	}
	_, err := command(netfreeze, "thaw", fmt.Sprint(l.pid))
	return err
}

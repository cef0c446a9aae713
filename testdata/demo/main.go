// SPDX-License-Identifier: Apache-2.0

// Command demo shows live, in the lab, what criu-netfreeze does: a server on a
// host of its own pushes numbered records to a client over TCP. CRIU dumps the
// server with leave-running; the server is stopped, and is restored in a new
// network namespace whose address has been live for two seconds. Without
// criu-netfreeze the client's connections are reset; with it they survive.
//
//	make demo
//
// It ends with the figures of all acts, and fails if they are not as promised.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// build is the directory, shared into the lab, that holds what was built: this
// program, the traffic program and, below dest, criu-netfreeze as "make install"
// left it.
var build = filepath.Dir(os.Args[0])

// Where criu-netfreeze is installed, and its configuration.
const (
	netfreeze  = "/usr/local/bin/netfreeze"
	configFile = "/etc/criu/netfreeze.toml"
	logFile    = "/run/netfreeze.log"
	config     = "policy = \"kill\"\n[log]\nfile = \"" + logFile + "\"\n"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	if os.Getenv("NETFREEZE_IN_LAB") == "" {
		return errors.New("this program changes the machine it runs on: run it in the lab, with \"make demo\"")
	}
	s := newScreen(os.Stdout)
	var heads []string
	var all []figures
	var broken []error
	for _, a := range []*act{
		{name: "Act 1", about: "without criu-netfreeze"},
		{name: "Act 2", about: "without it, with the link cut before the server is stopped", cutFirst: true},
		{name: "Act 3", about: "with criu-netfreeze", withNetfreeze: true},
	} {
		s.title(a.name + ": " + a.about)
		a.screen = s
		if err := a.play(); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		heads, all = append(heads, a.name), append(all, a.figures)
		if err := a.figures.verdict(a.withNetfreeze); err != nil {
			broken = append(broken, fmt.Errorf("%s is not as promised:\n%w", a.name, err))
		}
	}
	s.title("The figures")
	s.print(plain, table(heads, all), "\n")
	if err := errors.Join(broken...); err != nil {
		return err
	}
	s.line(good, "as promised: resets without criu-netfreeze; with it not a byte lost, no FIN, no RST")
	return nil
}

// install copies criu-netfreeze to where a user would have it, and configures the
// criu command to use it. CRIU's own lock is skipped: the freeze takes its place,
// and without the lock the tasks are stopped for less than half the time.
func install(s *screen) error {
	for _, dir := range []string{"/usr/local", "/etc/criu"} {
		if _, err := command("", "cp", "-a", filepath.Join(build, "dest", dir)+"/.", dir); err != nil {
			return err
		}
	}
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		return err
	}
	options := []string{"install", "--runtime", "default"}
	output, err := command("", netfreeze, options...)
	if err != nil {
		return err
	}
	s.line(plain, "netfreeze %s: %s", strings.Join(options, " "), output)
	s.line(plain, "%s: policy = \"kill\"", configFile)
	return nil
}

// Command demo tells the story of the suite, live, in the lab: a server on a
// host of its own pushes numbered records to a client over TCP, is dumped by a
// CRIU that is asked to leave it running, is stopped, and is restored in a
// fresh network namespace whose address has been live for two seconds. Without
// the suite the client's connections are reset; with it they go on.
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

// build is where the lab shows what was built: this program, the traffic
// program and, below dest, the suite as "make install" puts it there.
var build = filepath.Dir(os.Args[0])

// The suite as it is installed.
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
		return errors.New("this changes the machine that it runs on: run it in the lab, with \"make demo\"")
	}
	s := newScreen(os.Stdout)
	var heads []string
	var all []figures
	var broken []error
	for _, a := range []*act{
		{name: "Act 1", about: "without the suite"},
		{name: "Act 2", about: "without it, and the link cut before the server is stopped", cutFirst: true},
		{name: "Act 3", about: "with the suite", suite: true},
	} {
		s.title(a.name + ": " + a.about)
		a.screen = s
		if err := a.play(); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		heads, all = append(heads, a.name), append(all, a.figures)
		if err := a.figures.verdict(a.suite); err != nil {
			broken = append(broken, fmt.Errorf("%s is not as promised:\n%w", a.name, err))
		}
	}
	s.title("The figures")
	s.print(plain, table(heads, all), "\n")
	if err := errors.Join(broken...); err != nil {
		return err
	}
	s.line(good, "as promised: reset without the suite; with it not a byte lost, no FIN, no RST")
	return nil
}

// install puts the suite where a user has it and has the criu command use it.
// CRIU's own lock is left out: the freeze does what it is for, and without it
// the tasks stand still for less than half the time.
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
	said, err := command("", netfreeze, options...)
	if err != nil {
		return err
	}
	s.line(plain, "netfreeze %s: %s", strings.Join(options, " "), said)
	s.line(plain, "%s: policy = \"kill\"", configFile)
	return nil
}

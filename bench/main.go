// SPDX-License-Identifier: Apache-2.0

// Command bench measures what criu-netfreeze costs: the time that it adds to a
// container's outage, how long each action of its script takes, how soon traffic
// resumes, what the rest of the host notices, and how all of that grows. It runs
// in the lab ("make bench"), runs the cases of a comparison in interleaved order,
// and prints tables. With -results it also writes README.md, the plots, and the
// samples behind them (results.json).
//
// It is not a test: a result that misses its bound is marked as such, and is not
// a failure. A measurement that cannot be made is one.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Where criu-netfreeze is installed in the lab.
const (
	netfreeze = "/usr/local/bin/netfreeze"
	libexec   = "/usr/local/libexec/criu-netfreeze"
	hook      = libexec + "/netfreeze-hook"
	settler   = libexec + "/netfreeze-settler"
	toml      = "/etc/criu/netfreeze.toml"
)

// built is the directory of this program and its helper programs.
var built = filepath.Dir(os.Args[0])

// measurement is one part of a run. It adds groups to the results.
type measurement struct {
	name string
	run  func(*bench) error
}

// The first measurements are about single milliseconds: they come before those
// after which the kernel is busy for a while with removing what they leave.
var measurements = []measurement{
	{"actions", (*bench).actions},
	{"resume", (*bench).resume},
	{"peers", (*bench).peers},
	{"whole", (*bench).wholeOutage},
	{"bulk", (*bench).bulk},
	{"stall", (*bench).stall},
	{"frozen", (*bench).frozen},
	{"growth", (*bench).growth},
	{"bystanders", (*bench).bystanders},
	{"scale", (*bench).scale},
}

// bench is one run.
type bench struct {
	rounds     int
	outages    []time.Duration
	held       int            // how many containers are held at once
	shapes     *regexp.Regexp // selects the trees whose frozen time is measured
	locks      *regexp.Regexp // selects the variants that are compared there
	results    results
	netnsCount int
}

func main() {
	if err := run(); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run() error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	b := &bench{}
	dir := flags.String("results", "",
		"`DIRECTORY` to write README.md, the plots and results.json to (default: write none of them)")
	only := flags.String("only", "", "measure `NAMES` only, separated by commas: "+names())
	page := flags.Bool("page", false, "measure nothing, but write README.md and the plots again, from results.json in -results")
	outages := flags.String("outages", "50ms,100ms,300ms,1s,3s,10s,30s,60s", "`LENGTHS` of the outages, from 50 ms to 60 s")
	shapes := flags.String("shapes", "",
		"measure the frozen time of trees that match `REGEXP` only, such as \"1 process, 1 connection$\"")
	locks := flags.String("locks", "", "measure the frozen time with network locks that match `REGEXP` only, and with skip")
	flags.IntVar(&b.rounds, "rounds", 11, "`NUMBER` of repetitions; slow measurements are repeated a third as often")
	flags.IntVar(&b.held, "held", 200, "`NUMBER` of containers to hold at once")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if *page {
		if *dir == "" {
			return errors.New("-page needs -results, the directory with results.json")
		}
		if err := b.results.load(*dir); err != nil {
			return err
		}
		return b.results.write(*dir)
	}
	var err1, err2 error
	b.shapes, err1 = regexp.Compile(*shapes)
	b.locks, err2 = regexp.Compile("^skip$|" + *locks)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, s := range strings.Split(*outages, ",") {
		d, err := time.ParseDuration(s)
		if err != nil || d < 50*time.Millisecond || d > time.Minute {
			return fmt.Errorf("-outages: %q is not a duration from 50ms to 60s", s)
		}
		b.outages = append(b.outages, d)
	}
	if b.rounds < 3 || b.held < 1 {
		return errors.New("-rounds must be at least 3 and -held at least 1")
	}
	if os.Getenv("NETFREEZE_IN_LAB") == "" {
		return errors.New("this program freezes networks and stops processes: run it in the lab, with \"make bench\"")
	}
	if err := install(filepath.Join(built, "../dest")); err != nil {
		return err
	}
	var failed []error
	b.results.Host = describeHost(b.rounds)
	for _, m := range measurements {
		if *only != "" && !strings.Contains(","+*only+",", ","+m.name+",") {
			continue
		}
		began := time.Now()
		if err := m.run(b); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
			progress("%s: %v", m.name, err)
		}
		progress("%s took %s\n", m.name, time.Since(began).Round(time.Second))
	}
	b.results.Host.LoadAfter = loadAverage()
	b.results.checkBounds()
	b.results.printTables(os.Stdout)
	if *dir != "" {
		failed = append(failed, b.results.write(*dir))
	}
	return errors.Join(failed...)
}

func names() string {
	var list []string
	for _, m := range measurements {
		list = append(list, m.name)
	}
	return strings.Join(list, ", ")
}

// install copies criu-netfreeze to where a user would have it. The lab has its
// own, initially empty, /usr/local and /etc/criu.
func install(dest string) error {
	for _, dir := range []string{"/usr/local", "/etc/criu"} {
		if out, err := exec.Command("cp", "-a", filepath.Join(dest, dir)+"/.", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("install into %s: %w: %s", dir, err, out)
		}
	}
	return nil
}

// configure writes netfreeze.toml.
func configure(lines ...string) error {
	return os.WriteFile(toml, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// progress reports on standard error what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// shuffledOrder returns the numbers 0 to n-1, starting with a different one in
// each round and counting down in every other round, so that no case always
// follows the same one.
func shuffledOrder(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (i + round) % n
		if round%2 == 1 {
			order[i] = (2*n - 1 - i - round%n) % n
		}
	}
	return order
}

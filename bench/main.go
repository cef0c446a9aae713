// Command bench measures what criu-netfreeze costs: the time that it adds to a
// container's outage, what one action of its script takes, how soon traffic
// resumes, what the rest of the host notices, and how all of it grows. It runs
// in the lab ("make bench"), compares in interleaved order, prints tables and
// writes results.json, the plots and README.md.
//
// It is no test: figures that miss a bound are shown as such and are no
// failure. A measurement that could not be made is.
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

// Where the suite is installed in the lab, and what was built for this.
const (
	netfreeze = "/usr/local/bin/netfreeze"
	libexec   = "/usr/local/libexec/criu-netfreeze"
	hook      = libexec + "/netfreeze-hook"
	toml      = "/etc/criu/netfreeze.toml"
)

// built is the directory of this program and its helpers.
var built = filepath.Dir(os.Args[0])

// measurement is one part of the run; it adds groups to the results.
type measurement struct {
	name string
	run  func(*bench) error
}

// The first ones look at single milliseconds: the kernel is busy for a while
// with taking down what the later ones leave.
var measurements = []measurement{
	{"actions", (*bench).actions},
	{"resume", (*bench).resume},
	{"frozen", (*bench).frozen},
	{"growth", (*bench).growth},
	{"beside", (*bench).beside},
	{"scale", (*bench).scale},
}

// bench is one run.
type bench struct {
	rounds  int
	outages []time.Duration
	held    int
	shapes  *regexp.Regexp // of the trees whose frozen time is measured
	locks   *regexp.Regexp // by whose names variants are chosen there
	results results
	worlds  int
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
	dir := flags.String("results", ".", "`DIRECTORY` to write results.json, README.md and the plots to")
	only := flags.String("only", "", "measure `NAMES` only, separated by commas: "+names())
	page := flags.Bool("page", false, "measure nothing, write the page and plots anew from results.json")
	outages := flags.String("outages", "100ms,300ms,1s,3s,10s,30s,60s", "`LENGTHS` of the outages, 0.1 s to 60 s")
	shapes := flags.String("shapes", "", "measure the frozen time of trees that match `REGEXP` only, such as \"1 process, 1 connection$\"")
	locks := flags.String("locks", "", "measure the frozen time of ways to lock that match `REGEXP` only, and of skip")
	flags.IntVar(&b.rounds, "rounds", 11, "`NUMBER` of repetitions; what takes long gets a third")
	flags.IntVar(&b.held, "held", 200, "`NUMBER` of containers to hold at once")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if *page {
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
		if err != nil || d < 100*time.Millisecond || d > time.Minute {
			return fmt.Errorf("-outages: %q is no length from 100ms to 60s", s)
		}
		b.outages = append(b.outages, d)
	}
	if b.rounds < 3 || b.held < 1 {
		return errors.New("-rounds must be at least 3 and -held at least 1")
	}
	if os.Getenv("NETFREEZE_IN_LAB") == "" {
		return errors.New("this freezes networks and stops processes: run it in the lab, with \"make bench\"")
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
			say("%s: %v", m.name, err)
		}
		say("%s took %s\n", m.name, time.Since(began).Round(time.Second))
	}
	b.results.Host.LoadAfter = loadAverage()
	b.results.judge()
	b.results.print(os.Stdout)
	return errors.Join(append(failed, b.results.write(*dir))...)
}

func names() string {
	var list []string
	for _, m := range measurements {
		list = append(list, m.name)
	}
	return strings.Join(list, ", ")
}

// install copies the suite to where a user has it. The lab's /usr/local and
// /etc/criu are empty and its own.
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

// say shows how far it is.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// shuffledOrder returns 0 to n-1, beginning elsewhere in each round and going
// back every other one, so that no case always follows the same one.
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

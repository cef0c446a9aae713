// SPDX-License-Identifier: Apache-2.0

// Command faults looks for promises that break. It has a real CRIU dump and restore
// a small program with live TCP connections again and again, in the lab, and injects
// one fault or two into each run: processes killed or stopped at each step, system
// calls that fail, state directories that vanish. What the design promises is judged
// by what is seen at the peer and in the kernel, not by what our own programs say.
//
// "faults" on the host starts some labs, its worlds, and hands out the runs; "faults
// world" in a lab carries them out. Faults strike at steps: when CRIU executes the
// action-scripts before and after ours (testdata/step.c), or a moment later.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "world":
		exit(serveWorld(os.Stdin, os.Stdout))
	case len(os.Args) > 2 && os.Args[1] == callerWord:
		os.Exit(caller(os.Args[2:]))
	default:
		exit(drive(os.Args[1:]))
	}
}

func exit(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options is the command line of the driver.
type options struct {
	runs   int
	seed   uint64
	only   string
	worlds int
	lab    string
	build  string
	list   bool
	quiet  bool
	all    bool
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.IntVar(&o.runs, "runs", 200, "`NUMBER` of runs")
	flags.Uint64Var(&o.seed, "seed", 0, "`SEED` of the first run; the next one has the next number (default: the time)")
	flags.StringVar(&o.only, "only", "", "`REGEXP`: only runs whose fault@step/engine/backend/policy it matches")
	flags.IntVar(&o.worlds, "worlds", 3, "`NUMBER` of labs that are used side by side")
	flags.StringVar(&o.lab, "lab", "testdata/lab/lab", "`PATH` of the lab's script")
	flags.StringVar(&o.build, "build", "build", "`DIRECTORY` of the built programs; logs of broken runs go to keep/ below it")
	flags.BoolVar(&o.list, "list", false, "print the runs, and run nothing")
	flags.BoolVar(&o.all, "keep", false, "keep the logs of runs that broke nothing, too")
	flags.BoolVar(&o.quiet, "quiet", false, "print the table only")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.runs < 1 || o.worlds < 1 {
		return o, errors.New("no arguments, and a positive number of runs and worlds, are expected; see -help")
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().Unix())
	}
	return o, nil
}

// SPDX-License-Identifier: Apache-2.0

// Command gen makes what a package has beside the programs: the manual pages and the
// completions, from the commands themselves; Debian's and rpm's changelog, from
// CHANGELOG.md; the copyright file and the SBOM, from what the programs were linked
// with. The same input gives the same bytes: the only date is the one that it is given.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

// project is what every file says of us.
const (
	project    = "criu-netfreeze"
	module     = "github.com/criu-netfreeze/criu-netfreeze"
	homepage   = "https://" + module
	maintainer = "criu-netfreeze maintainers <criu-netfreeze@users.noreply.github.com>"
)

const usage = `usage: gen man DIRECTORY
       gen completions DIRECTORY
       gen changelog debian|rpm CHANGELOG.md
       gen copyright PROGRAM...
       gen sbom PROGRAM=PATH-IN-THE-PACKAGE...
The last three print to standard output. They take the package's version, and release
(1.2.3-1), from PACKAGE_VERSION, the time from SOURCE_DATE_EPOCH.`

var errUsage = errors.New("wrong arguments, see gen -help")

func main() {
	flag.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	flag.Parse()
	if err := run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	what, args := args[0], args[1:]
	switch what {
	case "man":
		return writeMan(args[0])
	case "completions":
		return writeCompletions(args[0])
	}
	p, err := packageFromEnvironment()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	switch {
	case what == "changelog" && len(args) == 2:
		err = writeChangelog(&out, p, args[0], args[1])
	case what == "copyright":
		err = writeCopyright(&out, args)
	case what == "sbom":
		err = writeSBOM(&out, p, args)
	default:
		err = errUsage
	}
	if err != nil {
		return err // and nothing is printed
	}
	_, err = os.Stdout.Write(out.Bytes())
	return err
}

// pkg is the package that is built.
type pkg struct {
	Version string // with the release, such as 1.2.3-1
	Time    time.Time
}

// packageFromEnvironment reads what the build script says of the package.
func packageFromEnvironment() (pkg, error) {
	version := os.Getenv("PACKAGE_VERSION")
	if version == "" {
		return pkg{}, errors.New("PACKAGE_VERSION is not set")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return pkg{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return pkg{Version: version, Time: time.Unix(seconds, 0).UTC()}, nil
}

// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v7"
)

// Versions of CRIU in its own form, major*10000 + minor*100 + sublevel: the first one
// that runs scripts of configuration files for runtimes, and the first one that dumps
// TCP sockets on recent kernels.
const (
	oldestCRIU = 31900
	goodCRIU   = 40200
)

const upgradeCRIU = "install CRIU 4.2 or newer"

// checkCRIU looks whether there is a CRIU, and asks it for its version. CRIU reads
// default.conf when it starts, even for that.
func checkCRIU(h *Host) []Finding {
	path := h.look("criu")
	if path == "" {
		return []Finding{fails("criu", upgradeCRIU, "it is not installed, or not in PATH")}
	}
	if !h.live() {
		return []Finding{ok(path, "is installed; its version can only be asked where it runs")}
	}
	version, err := criuVersion(path)
	if err != nil {
		return []Finding{fails(path, "run criu --version: what it prints says what is wrong; often a line of /etc/criu/default.conf", "it does not start: %v", err)}
	}
	found := []Finding{judgeCRIU(path, version)}
	if text, err := criuCheck(path); err != nil {
		found = append(found, warn(path, "run criu check -v4: it names what the kernel lacks", "criu check fails: %s", text))
	}
	return found
}

func judgeCRIU(path string, version int) Finding {
	text := fmt.Sprintf("%d.%d", version/10000, version/100%100)
	if version%100 != 0 {
		text += fmt.Sprintf(".%d", version%100)
	}
	switch {
	case version < oldestCRIU:
		return fails(path, upgradeCRIU, "CRIU %s runs no scripts of configuration files when a runtime calls it: that came with 3.19", text)
	case version < goodCRIU:
		return warn(path, upgradeCRIU, "CRIU %s cannot dump TCP sockets on recent kernels", text)
	}
	return ok(path, "CRIU %s", text)
}

// criuVersion asks CRIU for its version by its own protocol, as a runtime does.
func criuVersion(path string) (int, error) {
	c := criu.MakeCriu()
	c.SetCriuPath(path)
	return c.GetCriuVersion()
}

// checkTime is how long criu check may take. It takes a fraction of a second.
const checkTime = 20 * time.Second

// criuCheck has CRIU look for what it needs of the kernel, which changes nothing. It
// returns the last line of what it printed.
func criuCheck(path string) (last string, err error) {
	lines, err := runCRIU(path, "check", "--no-default-config") // or a log-file would be overwritten
	return lines[len(lines)-1], err
}

// accepts has CRIU read a configuration file, and do nothing else. It returns the first
// line of what it printed.
func accepts(path, file string) (first string, err error) {
	lines, err := runCRIU(path, "--no-default-config", "--config", file, "--version")
	return lines[0], err
}

// runCRIU returns what CRIU prints, at least one line.
func runCRIU(path string, args ...string) (lines []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
}

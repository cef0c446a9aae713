// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// checkOwnConfig looks at netfreeze.toml. A dump fails if it cannot be used.
func checkOwnConfig(h *Host) (found []Finding) {
	c, err := config.Load(h.on(config.Path))
	if problems, bad := errors.AsType[config.Problems](err); bad {
		for _, p := range problems {
			found = append(found, fails(fmt.Sprintf("%s:%d", config.Path, p.Line), "mend the line; netfreeze config check", "every dump fails: %s", p.Text))
		}
		return found
	}
	if err != nil {
		return []Finding{fails(config.Path, trustRemedy(err), "every dump fails: %v", err)}
	}
	set, err := c.For(identity.Container{})
	if err != nil {
		return []Finding{fails(config.Path, "mend the file; netfreeze config check", "%v", err)}
	}
	text := describePolicy(set)
	if n := len(c.Containers); n > 0 {
		text += fmt.Sprintf("; %d container rules", n)
	}
	if c.Annotations {
		text += "; annotations count"
	}
	found = append(found, ok(config.Path, "%s", text))
	if c.Log.File != "" {
		found = append(found, h.checkLog(c.Log.File))
	}
	return found
}

// trustRemedy is what helps with a file that others could have changed.
func trustRemedy(err error) string {
	if owner, is := errors.AsType[*safefile.OwnerError](err); is {
		return "look at what it says, then chown root " + owner.Path
	}
	return "look at what it says, then do what the message names"
}

// describePolicy says in one line what applies.
func describePolicy(s config.Settings) string {
	return fmt.Sprintf("policy %s by %s, back end %s, ttl %s", s.Policy, s.Why, s.Backend, config.FormatDuration(s.TTL))
}

// checkLog looks whether our log can be written.
func (h *Host) checkLog(file string) Finding {
	dir := filepath.Dir(file)
	switch err := unix.Access(h.on(dir), unix.W_OK); {
	case errors.Is(err, unix.ENOENT):
		return warn(file, "mkdir -p "+dir, "the directory of the log file does not exist: messages go to CRIU's log and to syslog only")
	case err != nil:
		return warn(file, "make the directory writable for root, or name another file", "the log file cannot be written: %v", err)
	}
	return ok(file, "the log file can be written")
}

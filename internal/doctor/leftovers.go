// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/expect"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// checkLeftovers looks for what programs that were killed have left, and for what nobody
// waits for any more. As netfreeze status does, it clears away records of what is over.
func checkLeftovers(h *Host) (found []Finding) {
	if !h.live() || h.Keeper == nil {
		return nil
	}
	list, _ := h.Keeper.List() // what cannot be read is looked at below
	inForce := 0
	for _, s := range list {
		switch s.State {
		case "orphaned":
			found = append(found, warn(s.NetNS, "netfreeze thaw '"+thawable(s.Container, s.NetNS)+"'", "a settler was killed in a transaction (%s), which nobody ends now", s.ID))
		case "criu-leftover":
			found = append(found, warn(s.NetNS, "netfreeze thaw --criu-leftovers '"+s.NetNS+"'", "%s", s.Note))
		case "guard":
		default:
			inForce++
		}
	}
	if inForce > 0 {
		found = append(found, note("netfreeze status", "", "%d freezes are in force", inForce))
	}
	found = append(found, checkRecords()...)
	found = append(found, checkExpectations()...)
	if len(found) == 0 {
		return []Finding{ok(record.Dir, "nothing is left over")}
	}
	return found
}

// thawable names what to thaw.
func thawable(container, ns string) string {
	if container != "" {
		return container
	}
	return ns
}

// checkRecords looks for records that cannot be used.
func checkRecords() (found []Finding) {
	bad, err := record.Unreadable()
	if err != nil {
		found = append(found, warn(record.Dir, "", "%v", err))
	}
	for _, b := range bad {
		file := fmt.Sprintf("%s/%s.json", record.Dir, b.ID)
		if b.Newer != 0 {
			found = append(found, warn(file, "use the criu-netfreeze that wrote it, or a newer one", "a newer version of criu-netfreeze wrote it (%d)", b.Newer))
			continue
		}
		id, known := b.NetNS()
		f := warn(file, "netfreeze thaw the namespace that it was about, if it is frozen, then remove the file", "it is damaged: %v", b.Unwrap())
		if known {
			f.Remedy = fmt.Sprintf("netfreeze thaw '%s', then remove the file", id)
			if gone(id) {
				f.Remedy = "remove the file: its namespace is gone"
				f = f.fixedBy("remove "+file, func() (string, error) { return "removed " + file, b.Remove() })
			}
		}
		found = append(found, f)
	}
	return found
}

// gone reports whether there is no namespace of this identity any more.
func gone(id netns.ID) bool {
	ns, err := netns.Find(id)
	if err == nil {
		_ = ns.Close()
	}
	return errors.Is(err, netns.ErrGone)
}

// checkExpectations looks for announced restores that never came.
func checkExpectations() (found []Finding) {
	unmet, err := expect.Unmet()
	if err != nil {
		found = append(found, warn(record.Dir+"/expected", "", "%v", err))
	}
	for _, e := range unmet {
		what := e.String()
		found = append(found, warn(what, "find out why (netfreeze status), and expect it again if it is still to come", "a restore was announced and never came; its time is over since %s", e.Until.Format("15:04:05")).
			fixedBy("forget the expectation of "+what, func() (string, error) {
				_, err := e.Cancel()
				return "forgot the expectation of " + what, err
			}))
	}
	return found
}

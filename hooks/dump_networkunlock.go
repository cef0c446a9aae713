package hooks

import (
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// networkUnlock is called when CRIU gives the network back: the dump has failed,
// or its caller wants the tasks to go on. CRIU ignores an error here.
func (d *Dump) networkUnlock() error {
	switch d.now {
	case dumpCommitted:
		d.to(dumpReleased)
	case dumpPrepared, dumpFrozen:
		d.to(dumpFailed)
	}
	if d.now == dumpReleased && d.set.Policy != config.Run {
		return nil // the settler decides, when it is known whether CRIU succeeded
	}
	return d.freeze.Lift()
}

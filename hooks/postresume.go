package hooks

import (
	"errors"

	"github.com/criu-netfreeze/criu-netfreeze/state"
)

// restoreUnlock thaws: all sockets are rebuilt and still in repair mode, the
// tasks have not been resumed, so the window probes that CRIU is about to
// cause get out.
func (t *transaction) restoreUnlock() error {
	t.unlocked = true
	if t.rec.Scope == state.Connections {
		return nil
	}
	err := t.lift()
	if t.lifted || t.thawed {
		t.dropTaken()
		t.resume()
	}
	return err
}

// release thaws and forgets the freezes that were taken over.
func (t *transaction) release() error {
	if err := t.thaw(); err != nil {
		return err
	}
	if t.thawed {
		t.resume()
	}
	t.dropTaken()
	return nil
}

// finish ends a restore that succeeded. CRIU may stay for as long as the tasks
// run (restore without -d), so the settler does not wait for its end.
func (s *settler) finish() error {
	err := s.tx.release()
	if err == nil {
		err = s.tx.rec.Remove()
	}
	if err != nil {
		return errors.Join(err, s.tx.rec.Save())
	}
	s.finished = true
	return nil
}

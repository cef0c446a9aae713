package hooks

import (
	"errors"

	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// restoreUnlock thaws: all sockets are rebuilt and still in repair mode, the
// tasks have not been resumed, so the window probes that CRIU is about to
// cause get out.
func (t *transaction) restoreUnlock() error {
	t.unlocked = true
	if t.rec.Scope == record.Connections {
		return nil
	}
	return t.release(t.lift)
}

// release thaws, by lift or by thaw, forgets the freezes that were taken over,
// and gets traffic going.
func (t *transaction) release(thaw func() error) error {
	if err := thaw(); err != nil {
		return err
	}
	t.dropTaken()
	if t.lifted || t.thawed {
		t.resume()
	}
	return nil
}

// finish ends a restore that succeeded. CRIU may stay for as long as the tasks
// run (restore without -d), so the settler does not wait for its end.
func (s *settler) finish() error {
	err := s.tx.release(s.tx.thaw)
	if err == nil {
		err = s.tx.rec.Remove()
	}
	if err != nil {
		return errors.Join(err, s.tx.rec.Save())
	}
	s.finished = true
	return nil
}

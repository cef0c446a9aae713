// SPDX-License-Identifier: Apache-2.0

// Package settler is the process that does the work: one per CRIU, started by the
// action-script at the first action. It takes CRIU's actions from a socket, one
// after the other, and has package hooks do them; it outlives CRIU, and settles the
// transaction when CRIU has ended.
package settler

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/hooks"
	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/settler/privilege"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// pollInterval is how often the settler of a committed dump checks whether CRIU is
// done with it, since some callers keep CRIU alive afterwards.
const pollInterval = 20 * time.Millisecond

// linger is how long the settler of a finished restore still answers: CRIU executes a
// script twice that is listed twice.
const linger = 2 * time.Second

// Run is the settler's whole life: it does the actions of the one CRIU process that id
// names (PID@START), in the order in which they come, and settles the transaction when
// CRIU has ended; then it looks after the hold, or the freeze that waits for a restore,
// that this may have left. To ready it writes action.Ready once actions can be sent, or else one
// line that says why not. From then on the process ignores signals (see ignoreSignals).
func Run(id string, ready *os.File) error {
	ignoreSignals()
	s, err := newSettler(id)
	if err != nil {
		_, _ = fmt.Fprintf(ready, action.StartSettler+"%s", printable.Text(code.Any(err).Error()))
		_ = ready.Close()
		return err
	}
	_, err = ready.WriteString(action.Ready)
	if err := errors.Join(err, ready.Close()); err != nil {
		s.close()
		return fmt.Errorf("say that the settler is ready: %w", err)
	}
	err = s.loop()
	if s.tx != nil {
		s.report.look(s.tx.Facts())
	}
	s.close() // whoever wants to undo a hold must find it free
	if s.tx != nil {
		w, ok := s.tx.Watch()
		if s.tx = nil; ok { // a hold may last for a day
			debug.FreeOSMemory()
			s.env.Keeper.Watch(s.id, w, s.env.Log)
		}
	}
	if err := s.report.journal.Close(); err != nil {
		s.env.Log.Warn(code.Any(err))
	}
	return err
}

// settler serves one transaction.
type settler struct {
	id   string
	env  *hooks.Env
	lock *record.Lock
	sock int
	read func() (*config.Config, error) // the configuration, which is being read meanwhile
	tx   hooks.Transaction              // nil before the first action

	report *reporter
}

func newSettler(id string) (*settler, error) {
	if err := privilege.Check(); err != nil {
		return nil, err
	}
	ref, err := proc.ParseRef(id)
	if err != nil {
		return nil, err
	}
	criu, err := ref.Open()
	if err != nil {
		return nil, fmt.Errorf("take hold of CRIU: %w", err)
	}
	read := sync.OnceValues(func() (*config.Config, error) { return config.Load(config.Path) })
	go read() //nolint:errcheck // whoever asks for it gets it
	s := &settler{id: id, sock: -1, read: read, report: &reporter{journal: journal.Open(id)}}
	s.env = &hooks.Env{
		Keeper: freeze.New(rules.Kernel{}), CRIU: criu, Log: newLog(), Config: s.configure, Pause: s.pause,
		Report: s.report.journal,
	}
	s.env.Log.AddHook(s.report)
	err = record.MakeDir()
	if err == nil {
		s.lock, err = record.Acquire(id)
	}
	if err == nil {
		s.sock, err = listen(action.Socket(id))
	}
	if err != nil {
		s.release()
		return nil, err
	}
	go s.leaveCaller()
	return s, nil
}

// close ends the settler's work.
func (s *settler) close() {
	if s.tx != nil {
		s.tx.Close()
	}
	s.release()
	s.env.Keeper.Tidy() // our own record may be of a namespace that has gone by now
}

// release gives back what newSettler took.
func (s *settler) release() {
	if s.lock != nil {
		record.Release(s.id, s.lock)
	}
	if s.sock >= 0 {
		_ = unix.Close(s.sock)
	}
	s.env.CRIU.Close()
}

// pause waits for d, and lets commands have the transaction meanwhile. It reports whether
// it is ours still: if its record has changed or gone, somebody has undone it.
func (s *settler) pause(d time.Duration) bool {
	before, err1 := record.Load(s.id)
	known := record.Exists(s.id)
	if s.lock != nil {
		s.lock.Release()
	}
	time.Sleep(d)
	for {
		var err error
		if s.lock, err = record.Acquire(s.id); !errors.Is(err, unix.EAGAIN) {
			break // where nobody can lock it, everybody goes on without
		}
	}
	if known && !record.Exists(s.id) {
		return false
	}
	now, err2 := record.Load(s.id)
	return err1 != nil || err2 != nil || now.Phase == before.Phase
}

// configure reads the configuration and sets the log up as it says.
func (s *settler) configure() (*config.Config, error) {
	cfg, err := s.read()
	if err != nil {
		return nil, err
	}
	level, err := logrus.ParseLevel(cfg.Log.Level)
	if err != nil {
		return nil, err
	}
	s.env.Log.SetLevel(level)
	return cfg, addLogFile(s.env.Log, cfg.Log.File)
}

// do does one action.
func (s *settler) do(req action.Request) (err error) {
	switch {
	case s.tx != nil:
		return s.tx.Do(req)
	case req.Action == action.PreDump || req.Action == action.PreRestore:
		s.tx, err = hooks.Begin(s.env, req)
		return err
	}
	if s.tx, err = hooks.Reopen(s.env); err != nil {
		return err
	}
	return s.tx.Do(req)
}

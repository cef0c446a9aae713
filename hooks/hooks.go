// SPDX-License-Identifier: Apache-2.0

// Package hooks is the story of a dump and of a restore, told by CRIU's actions:
// one file per action, in CRIU's order.
//
//	dump:    pre-dump → network-lock → post-dump → network-unlock → settle
//	restore: pre-restore → post-setup-namespaces → network-unlock → post-resume → settle
//
// A Dump and a Restore have explicit states, and refuse an action that their state
// does not allow. All actions of one CRIU are done by one process, the settler
// (package settler), one after the other; it settles the transaction once CRIU has
// ended, however that happened. How a namespace is frozen and thawed is package
// freeze's subject; whether, when and until when is decided here.
package hooks

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// Env is what a transaction works with.
type Env struct {
	Keeper *freeze.Keeper
	CRIU   *proc.Process // the CRIU whose actions these are
	Log    *logrus.Logger
	Config func() (*config.Config, error) // reads the configuration, and sets the log up as it says
	Report *journal.Journal               // takes what only a transaction knows; may be nil
	// Pause waits for a while between attempts to settle, and lets commands undo the
	// transaction meanwhile: it reports whether that is still to be done.
	Pause func(time.Duration) bool
}

// Transaction is one dump or one restore, from its first action to its
// settlement. Its methods must not be called concurrently.
type Transaction interface {
	// Do does one of CRIU's actions. An error makes CRIU give up where it still can.
	Do(action.Request) error
	// Finished reports whether the transaction is over and settled while CRIU may
	// still run; a script that is listed twice may still call.
	Finished() bool
	// Polls reports whether the end of CRIU is not all to wait for: Concluded must
	// be asked again and again.
	Polls() bool
	// Concluded reports whether CRIU is done with the transaction, although it lives on.
	Concluded() bool
	// Settle ends the transaction once CRIU has ended, or is done with it. What cannot
	// be taken back now is tried again until the kernel has done it.
	Settle() error
	// Facts returns what is known of the transaction by now, for its report.
	Facts() Facts
	// Watch returns what is to end the hold that the settlement has left, and whether
	// there is anything to watch.
	Watch() (w freeze.Watch, ok bool)
	// Close lets go of everything. Rules and record stay as they are.
	Close()
}

// Begin starts the transaction that a first action, pre-dump or pre-restore, asks
// for. After an error everything is as before.
func Begin(env *Env, req action.Request) (Transaction, error) {
	if req.Action == action.PreDump {
		d, err := preDump(env, req)
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	r, err := preRestore(env, req)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Reopen takes up the transaction of a settler that was killed, from its record.
func Reopen(env *Env) (Transaction, error) {
	rec, err := record.Load(env.CRIU.String())
	if errors.Is(err, os.ErrNotExist) {
		return nil, code.New(code.NoTransaction, "no pre-dump or pre-restore came before from this CRIU; nothing was changed (is the script listed for all actions? see netfreeze install)")
	}
	if err != nil {
		return nil, err
	}
	cfg, err := env.Config()
	if err != nil {
		env.Log.Warnf("going on without the configuration: %v", code.Wrap(code.Config, err))
		cfg = config.Default() // what matters is in the record
	}
	set, err := cfg.For(identity.Container{})
	if err != nil {
		return nil, err
	}
	// What was chosen for the container at the beginning holds. A back end was chosen
	// only if the namespace was known.
	set.Policy, set.Why = config.Policy(rec.Policy), rec.Why
	if own, err := cfg.For(rec.Container); err == nil {
		set.Answer = own.Answer
	}
	if rec.Backend != "" {
		set.Backend = rec.Backend
	}
	set.TTL = max(rec.Left(), config.MinTTL)
	c := common{env: env, set: set, freeze: env.Keeper.Freeze(rec, set.Backend, set.TTL, env.Log)}
	if err := c.freeze.Reopen(); err != nil {
		return nil, err
	}
	env.Log.Warn(code.New(code.NoSettler, "the settler was gone; a new one goes on with the transaction"))
	if rec.Op == record.Restore {
		return reopenRestore(c), nil
	}
	d, err := reopenDump(c)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// common is what a dump and a restore have in common.
type common struct {
	env    *Env
	set    config.Settings
	freeze *freeze.Freeze
}

// begin prepares a transaction for the container ct, nil if it is not known, and
// changes nothing yet.
func begin(env *Env, op record.Op, ct *container.Container) (common, error) {
	cfg, err := env.Config()
	if err != nil {
		return common{}, err
	}
	var id identity.Container
	if ct != nil {
		id = ct.Container
	}
	set, err := cfg.For(id)
	if err != nil {
		return common{}, err
	}
	name := env.CRIU.String()
	rec := &record.Record{
		ID: name, Op: op, Phase: record.Running, CRIU: env.CRIU.Ref,
		Policy: string(set.Policy), Why: set.Why,
		Container: id, Owner: ownerOf(name),
		Since: time.Now(),
	}
	rec.ExpireIn(set.TTL)
	return common{env: env, set: set, freeze: env.Keeper.Freeze(rec, set.Backend, set.TTL, env.Log)}, nil
}

// findContainer asks the runtime above CRIU which container this is about. Where
// that cannot be told only the general settings apply.
func findContainer(env *Env) *container.Container {
	c, err := container.Runtime(env.CRIU.PID)
	if err != nil {
		env.Log.Warnf("the container is not known by name, only the general settings apply: %v", code.Any(err))
	}
	return c
}

// record is what survives the settler.
func (c *common) record() *record.Record { return c.freeze.Record }

// ownerOf derives the owner of single connections' rules from the transaction.
func ownerOf(id string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return fmt.Sprintf("t%08x", h.Sum32())
}

// tryAgain is how long the settler waits after a settlement that failed, before
// the next attempt: another program may hold iptables' lock, say.
const tryAgain = time.Second

// settle tries once until it succeeds, enough is done, somebody else has done it, or the
// time to live is over.
func (c *common) settle(once func() error, enough func() bool) error {
	for {
		err := once()
		if err == nil {
			return nil
		}
		r := c.record()
		c.env.Log.Error(code.Any(fmt.Errorf("settle the %s of %s: %w", r.Op, r.Describe(), err)))
		if enough() || r.Expired() {
			return err
		}
		if !c.env.Pause(tryAgain) {
			c.env.Log.Warn(code.New(code.OtherTransaction, fmt.Sprintf("the %s of %s was undone by somebody else", r.Op, r.Describe())))
			return nil
		}
	}
}

// foreign is the answer to an action that is none of the transaction's.
func (c *common) foreign(req action.Request) error {
	if req.Action == action.PreDump || req.Action == action.PreRestore {
		return code.New(code.OtherTransaction, "this CRIU has a transaction under way already; nothing was changed")
	}
	return code.New(code.OtherTransaction, fmt.Sprintf("this action does not belong to a %s, which this CRIU began; nothing was changed", c.record().Op))
}

func clock(t time.Time) string { return t.Format("15:04:05") }

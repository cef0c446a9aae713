package hooks

import (
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/container"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/rules"
)

// transaction is one dump or one restore, from its first action to its
// settlement. What has to survive the settler is in rec.
type transaction struct {
	rec  *record.Record
	set  config.Settings
	criu *proc.Process
	log  *logrus.Logger

	ns    *netns.Namespace // nil on a restore whose namespace CRIU has yet to make
	whole rules.Freezer    // scope netns
	conns rules.ConnFreezer
	stats statsFile // dump: how CRIU says that it succeeded

	images  *os.File // dump: the image directory, which outlives CRIU's path to it
	resumer *resumer // restore: gets traffic going after the thaw

	unlocked bool      // CRIU gave the network back
	adopted  bool      // restore: the namespace was frozen before
	mixed    bool      // perhaps by another back end too
	lifted   bool      // nothing of ours is frozen any more,
	thawed   bool      // and no rule is left
	armed    time.Time // when the freeze began
	letGo    time.Time // since when CRIU has not held the tasks, after post-dump
	least    time.Time // until when an older freeze there lasts: ours does not end before
}

// begin returns a new transaction for the container c.
func (s *settler) begin(op record.Op, c *container.Container) (*transaction, error) {
	cfg, err := s.configure()
	if err != nil {
		return nil, err
	}
	if c == nil {
		c = &container.Container{}
	}
	set, err := cfg.For(describe(c))
	if err != nil {
		return nil, err
	}
	rec := &record.Record{
		ID: s.id, Op: op, Phase: record.Running, CRIU: s.criu.Ref,
		Policy: string(set.Policy), Why: set.Why,
		Container: c.ID, Name: c.Name, Owner: ownerOf(s.id),
		Since: time.Now(),
	}
	if c.PodName != "" {
		rec.Pod = c.PodNamespace + "/" + c.PodName
	}
	return &transaction{rec: rec, set: set, criu: s.criu, log: s.log}, nil
}

// reopen takes up a transaction from its record.
func reopen(s *settler, cfg *config.Config, rec *record.Record) (*transaction, error) {
	set, err := cfg.For(config.Container{})
	if err != nil {
		return nil, err
	}
	// What was chosen for the container at the beginning holds.
	set.Policy, set.Why, set.Backend = config.Policy(rec.Policy), rec.Why, rec.Backend
	set.TTL = max(time.Until(rec.Until), config.MinTTL)
	t := &transaction{rec: rec, set: set, criu: s.criu, log: s.log}
	if rec.Phase == record.Committed {
		if t.stats, err = watchStats(s.criu.Ref); err != nil {
			return nil, err
		}
	}
	if rec.NetNS == (netns.ID{}) {
		return t, nil
	}
	ns, err := findNetNS(rec)
	if err != nil {
		return nil, fmt.Errorf("find the network namespace of the transaction again: %w", err)
	}
	t.adopted = true // who knows
	return t, t.use(ns)
}

// describe is what the configuration chooses by.
func describe(c *container.Container) config.Container {
	return config.Container{
		ID: c.ID, Name: c.Name, PodNamespace: c.PodNamespace, PodName: c.PodName,
		Annotations: c.Annotations,
	}
}

// ownerOf derives the owner of single connections' rules from the transaction.
func ownerOf(id string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return fmt.Sprintf("t%08x", h.Sum32())
}

// closeRules lets go of the back end. Rules stay.
func (t *transaction) closeRules() {
	if t.whole != nil {
		_ = t.whole.Close()
	}
	if t.conns != nil {
		_ = t.conns.Close()
	}
	t.whole, t.conns = nil, nil
}

func (t *transaction) close() {
	t.closeRules()
	t.stats.close()
	if t.images != nil {
		_ = t.images.Close()
	}
	if t.ns != nil {
		_ = t.ns.Close()
	}
}

// reason says for people why a record keeps a namespace frozen.
func reason(r *record.Record) string {
	what := map[record.Phase]string{
		record.Running: "is being worked on", record.Committed: "is being worked on",
		record.Held: "is held", record.Isolated: "is isolated",
		record.Ended: "has ended", record.Frozen: "was frozen by hand",
	}[r.Phase]
	if r.Container != "" {
		return fmt.Sprintf("container %s %s", r.Container, what)
	}
	if len(r.Tree) > 0 {
		return fmt.Sprintf("the tree of pid %d %s", r.Tree[0].PID, what)
	}
	return fmt.Sprintf("%s %s", r.NetNS, what)
}

// name is a target by which the command line finds the record.
func name(r *record.Record) string {
	switch {
	case r.Container != "":
		return r.Container
	case len(r.Tree) > 0 && r.Alive():
		return fmt.Sprint(r.Tree[0].PID)
	case r.Path != "":
		return r.Path
	}
	return r.NetNS.String()
}

// findNetNS opens a record's namespace, wherever it is to be found now. The
// error wraps netns.ErrGone if it has gone, even if another one has its inode.
func findNetNS(r *record.Record) (*netns.Namespace, error) {
	for _, p := range r.Tree {
		if ns, err := netns.OpenPID(p.PID, p.Start); err == nil {
			if ns.ID() == r.NetNS {
				return ns, nil
			}
			_ = ns.Close()
		}
	}
	ns, err := netns.Find(r.NetNS)
	if err != nil {
		return nil, err
	}
	if cookie, err := ns.Cookie(); err == nil && cookie != 0 && r.Cookie != 0 && cookie != r.Cookie {
		_ = ns.Close()
		return nil, fmt.Errorf("%s: %w", r.NetNS, netns.ErrGone)
	}
	return ns, nil
}

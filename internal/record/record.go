// SPDX-License-Identifier: Apache-2.0

// Package record keeps what must outlive a process: one record per transaction
// or freeze, in /run/criu-netfreeze, readable by root alone. It is gone after
// a reboot, as is everything that it describes.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
	"github.com/criu-netfreeze/criu-netfreeze/internal/tcp"
)

// Dir is where the records are.
const Dir = action.Dir

// Op says what a record was made for.
type Op string

// The operations.
const (
	Dump    Op = "dump"
	Restore Op = "restore"
	Manual  Op = "manual" // a freeze without a CRIU: netfreeze freeze, or at a namespace's birth
)

// Phase says how far a record's transaction got.
type Phase string

// The phases. The first two belong to a transaction that still goes on (or
// whose settler was killed); the others to a freeze that stays on purpose.
const (
	Running   Phase = "running"   // CRIU is at work; the freeze may be armed
	Committed Phase = "committed" // the images are complete, CRIU has not ended yet
	Held      Phase = "held"      // tasks stopped, sockets in repair mode, frozen
	Isolated  Phase = "isolated"  // tasks run, frozen
	Ended     Phase = "ended"     // tasks are gone, frozen until restored or timed out
	Frozen    Phase = "frozen"    // frozen without a transaction
)

// Scope says how much of a namespace a freeze covers.
type Scope string

// The scopes.
const (
	NetNS       Scope = "netns"       // the whole namespace
	Connections Scope = "connections" // the tree's own 4-tuples
)

// version is the version of the records' format that this program writes. Records
// without one are of the first version.
const version = 1

// Record describes one transaction or one freeze.
type Record struct {
	Version   int                `json:"version"`
	ID        string             `json:"id"`
	Op        Op                 `json:"op"`
	Phase     Phase              `json:"phase"`
	Scope     Scope              `json:"scope"`
	NetNS     netns.ID           `json:"netns"`
	Cookie    uint64             `json:"cookie,omitempty"` // of the namespace: another one may get its inode later
	Path      string             `json:"path,omitempty"`   // where the namespace was found
	Backend   backend.Kind       `json:"backend"`
	Owner     string             `json:"owner,omitempty"` // of the rules, in scope connections
	Policy    string             `json:"policy,omitempty"`
	Why       string             `json:"why,omitempty"` // what chose the policy
	Container identity.Container `json:"container,omitzero"`
	CRIU      proc.Ref           `json:"criu"`
	Tree      []proc.Ref         `json:"tree,omitempty"`
	Stopped   bool               `json:"stopped,omitempty"` // the tree got our SIGSTOP
	// StoppedBefore are the tasks that were stopped before the dump: they stay so.
	StoppedBefore []proc.Ref `json:"stopped_before,omitempty"`
	Conns         tcp.Tuples `json:"conns,omitempty"` // the tree's own, as far as they are known
	Reuse         tcp.Reuse  `json:"reuse,omitempty"`
	// Answer is the packet mark with which answers to the peers leave the freeze; 0 is
	// none. It is secret: see the package comment of rules.
	Answer uint32 `json:"answer,omitempty"`
	// InFlight are the connections whose peers have data in flight, as far as they were
	// answered.
	InFlight tcp.Tuples `json:"in_flight,omitempty"`

	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"` // when the kernel ends the freeze at the latest, see ExpireIn
	Boot    Boot      `json:"boot,omitzero"`
	Note    string    `json:"note,omitempty"`
	Network string    `json:"network,omitempty"` // CNI: the name of the network at whose ADD it was made

	// Restores is, of a freeze for restores to come, how many it waits for, 0 for one;
	// Restored are the transactions among them that are done.
	Restores int      `json:"restores,omitempty"`
	Restored []string `json:"restored,omitempty"`

	// Quiet says that the peers may have been made quiet before the freeze, see package
	// quiet. Which of them are so only the process knows that did it.
	Quiet bool `json:"quiet,omitempty"`

	// Images is, of a restore, the directory of the images, as far as it has a path. CRIU's
	// own word for it, CRTOOLS_IMAGE_DIR, is right only at the first action.
	Images string `json:"images,omitempty"`
	// Addressed says, of a restore, that the caller of CRIU gives the namespace
	// its addresses before CRIU starts.
	Addressed bool `json:"addressed,omitempty"`
	// ForeignLocks are CRIU's own tables that were in the namespace before; nil
	// until somebody has looked.
	ForeignLocks []string `json:"foreign_locks"`
}

// Alive reports whether any process of the record's tree still exists.
func (r *Record) Alive() bool {
	for _, p := range r.Tree {
		if p.Alive() {
			return true
		}
	}
	return false
}

// Busy reports whether a settler or a command has the record.
func (r *Record) Busy() bool { return Busy(r.ID) }

// Settling reports whether the transaction's settler is still there to end it.
func (r *Record) Settling() bool {
	return (r.Phase == Running || r.Phase == Committed) && r.Busy()
}

// Holds reports whether the record still has a reason to keep its namespace
// frozen: a transaction under way, or tasks that are kept.
func (r *Record) Holds() bool {
	switch r.Phase {
	case Running:
		return r.underWay()
	case Committed:
		// Its settler may have been killed: the images are complete all the same, and
		// tasks that are stopped or isolated must stay behind the freeze.
		return r.underWay() || r.Alive() && (r.Busy() || r.Policy != "run")
	case Held, Isolated:
		return r.Alive()
	}
	return false
}

// underWay reports whether CRIU is at work on the transaction, even if its settler was
// killed: the next action starts another one, which has to find the namespace frozen. A
// CRIU that stays on after its work, without a settler, counts for no longer than the
// time to live. After CRIU's end there may be much left to undo, but nobody needs the
// namespace frozen for that.
func (r *Record) underWay() bool { return r.CRIU.Alive() && (r.Busy() || !r.Expired()) }

// Waits reports whether the record stands for a freeze that waits, within its
// time to live, for a restore or for somebody to thaw it.
func (r *Record) Waits() bool {
	waiting := r.Phase == Ended || r.Phase == Frozen ||
		(r.Phase == Held || r.Phase == Committed && !r.underWay()) && !r.Alive()
	return waiting && !r.Expired()
}

// Undoable reports whether tasks live to which something was done that somebody may
// have to undo: they are stopped or isolated, or their dump was broken off, which
// may have left their sockets in repair mode. Such a record must not be dropped.
func (r *Record) Undoable() bool {
	brokenOff := r.Op == Dump && (r.Phase == Running || r.Phase == Committed)
	return (r.Stopped || r.Phase == Isolated || brokenOff) && r.Alive()
}

// MoreToCome returns how many restores a freeze that is for several still waits for.
func (r *Record) MoreToCome() int { return max(r.Restores-len(r.Restored), 0) }

// Over reports whether nobody needs the record any more: its time to live is
// over, no settler has it, and no process of it lives.
func (r *Record) Over() bool {
	return r.Expired() && !r.Alive() && !r.Settling()
}

// Describe names what a record is about, for messages.
func (r *Record) Describe() string {
	switch {
	case r.Op == Manual:
		return r.NetNS.String()
	case r.Container.ID != "":
		return "container " + r.Container.ID
	case len(r.Tree) > 0:
		return fmt.Sprintf("pid %d", r.Tree[0].PID)
	}
	return "the tree"
}

// DescribeHold says why a record keeps a namespace frozen.
func (r *Record) DescribeHold() string {
	what := map[Phase]string{
		Running: "is being worked on", Committed: r.describeCommitted(),
		Held: "is held", Isolated: "is isolated",
		Ended: "has ended", Frozen: "was frozen by hand",
	}[r.Phase]
	switch {
	case r.MoreToCome() > 0:
		return fmt.Sprintf("%s waits for %d of %d restores", r.NetNS, r.MoreToCome(), r.Restores)
	case r.Container.ID != "":
		return fmt.Sprintf("container %s %s", r.Container.ID, what)
	case len(r.Tree) > 0:
		return fmt.Sprintf("the tree of pid %d %s", r.Tree[0].PID, what)
	}
	return fmt.Sprintf("%s %s", r.NetNS, what)
}

func (r *Record) describeCommitted() string {
	if r.Busy() || r.CRIU.Alive() {
		return "is being worked on"
	}
	return "was dumped, and its settler killed before it could apply the policy,"
}

// ThawTarget is a target by which netfreeze thaw finds the record.
func (r *Record) ThawTarget() string {
	switch {
	case r.Container.ID != "":
		return r.Container.ID
	case len(r.Tree) > 0 && r.Alive():
		return fmt.Sprint(r.Tree[0].PID)
	case r.Path != "":
		return r.Path
	}
	return r.NetNS.String()
}

// MakeDir makes Dir, and refuses one that others than root could have filled.
func MakeDir() error {
	if err := os.Mkdir(Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the state directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(Dir, &st); err != nil {
		return fmt.Errorf("look at the state directory: %w", &os.PathError{Op: "lstat", Path: Dir, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != 0 || st.Mode&0o077 != 0 {
		return code.New(code.Untrusted, fmt.Sprintf("the state directory %s is not a directory of root with mode 0700: remove it", Dir))
	}
	return nil
}

// Save writes the record in one step.
func (r *Record) Save() error {
	r.Version = version
	data, err := json.Marshal(r)
	if err == nil {
		err = safefile.Write(path(r.ID), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the record of %s: %w", r.ID, err)
	}
	return nil
}

// Remove deletes the record. It is no error if there is none.
func (r *Record) Remove() error {
	if err := os.Remove(path(r.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the record of %s: %w", r.ID, err)
	}
	return nil
}

// Load reads the record called id. The error wraps os.ErrNotExist if there is none, and
// is an [*UnreadableError] if it cannot be used.
func Load(id string) (*Record, error) {
	data, err := os.ReadFile(path(id))
	if err != nil {
		return nil, err
	}
	r, err := parse(data)
	if err == nil && r.Version <= version && r.ID != id {
		err = code.New(code.Record, fmt.Sprintf("it is the record of %q", r.ID))
	}
	switch {
	case err != nil:
		return nil, &UnreadableError{ID: id, text: data, err: err}
	case r.Version > version:
		return nil, &UnreadableError{ID: id, Newer: r.Version, text: data}
	}
	return r, nil
}

// Exists reports whether there is a record called id. It needs no descriptor.
func Exists(id string) bool {
	_, err := os.Lstat(path(id))
	return err == nil
}

// Stat describes the file of the record called id. What it says is the same as long as
// the file is: each Save makes another one.
func Stat(id string) (os.FileInfo, error) { return os.Lstat(path(id)) }

// parse reads a record's text. The rest of what a later version says is not looked at.
func parse(data []byte) (*Record, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	if v.Version > version {
		return &Record{Version: v.Version}, nil
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// All returns every record. Unreadable ones are reported beside the others.
func All() ([]*Record, error) {
	all, bad, err := read()
	errs := []error{err}
	for _, e := range bad {
		errs = append(errs, e)
	}
	return all, errors.Join(errs...)
}

// recordIDs returns the names of all records.
func recordIDs() (ids []string, err error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// Of returns the records that concern a namespace. One that is about a former
// namespace with the same inode is stale and is removed. What is damaged is left out: it
// must not keep anybody from thawing; [All] reports it. One that a later program wrote
// is an [*UnreadableError], since it may be in force.
func Of(ns *netns.Namespace) ([]*Record, error) {
	cookie, err := ns.Cookie()
	if err != nil {
		return nil, err
	}
	all, bad, _ := read()
	var of []*Record
	for _, r := range all {
		switch {
		case r.NetNS != ns.ID():
		case r.Cookie != 0 && cookie != 0 && r.Cookie != cookie:
			err = errors.Join(err, r.Remove())
		default:
			of = append(of, r)
		}
	}
	for _, e := range bad {
		if id, ok := e.NetNS(); ok && id == ns.ID() && e.Newer != 0 {
			err = errors.Join(err, e)
		}
	}
	return of, err
}

func path(id string) string { return filepath.Join(Dir, id+".json") }

// Package record keeps what must outlive a process: one record per transaction
// or freeze, in /run/criu-netfreeze, readable by root alone. It is gone after
// a reboot, as everything is that it speaks of.
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

	"github.com/criu-netfreeze/criu-netfreeze/internal/netns"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// Dir is where the records are.
const Dir = "/run/criu-netfreeze"

// Op says what a record was made for.
type Op string

// The operations.
const (
	Dump    Op = "dump"
	Restore Op = "restore"
	Manual  Op = "manual" // netfreeze freeze
)

// Phase says how far it got.
type Phase string

// The phases. The first two belong to a transaction that still goes on (or
// whose settler is gone); the others to a freeze that stays on purpose.
const (
	Running   Phase = "running"   // CRIU is at work; the freeze may be armed
	Committed Phase = "committed" // the images are complete, CRIU has not ended yet
	Held      Phase = "held"      // tasks stopped, sockets in repair mode, frozen
	Isolated  Phase = "isolated"  // tasks run, frozen
	Ended     Phase = "ended"     // tasks are gone, frozen until restored or timed out
	Frozen    Phase = "frozen"    // by hand, no transaction
)

// Scope says how much of a namespace a freeze covers.
type Scope string

// The scopes.
const (
	NetNS       Scope = "netns"       // the whole namespace
	Connections Scope = "connections" // the tree's own 4-tuples
)

// Record describes one transaction or one freeze.
type Record struct {
	ID        string     `json:"id"`
	Op        Op         `json:"op"`
	Phase     Phase      `json:"phase"`
	Scope     Scope      `json:"scope"`
	NetNS     netns.ID   `json:"netns"`
	Cookie    uint64     `json:"cookie,omitempty"` // of the namespace: its inode may be another's later
	Path      string     `json:"path,omitempty"`   // where the namespace was found
	Backend   string     `json:"backend"`
	Owner     string     `json:"owner,omitempty"` // of the rules, in scope connections
	Policy    string     `json:"policy,omitempty"`
	Why       string     `json:"why,omitempty"` // what chose the policy
	Container string     `json:"container,omitempty"`
	Name      string     `json:"name,omitempty"`
	Pod       string     `json:"pod,omitempty"` // namespace/name
	CRIU      proc.Ref   `json:"criu"`
	Tree      []proc.Ref `json:"tree,omitempty"`
	Stopped   bool       `json:"stopped,omitempty"` // the tree got our SIGSTOP
	Conns     Conns      `json:"conns,omitempty"`   // the tree's own, as far as they are known
	Reuse     Reuse      `json:"reuse,omitempty"`
	Since     time.Time  `json:"since"`
	Until     time.Time  `json:"until"` // when the kernel ends the freeze at the latest
	Note      string     `json:"note,omitempty"`
	Network   string     `json:"network,omitempty"` // CNI: the name of the network at whose ADD it was made

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
func (r *Record) Busy() bool { return held(lockPath(r.ID)) }

// Settling reports whether the transaction's settler is still there to end it.
func (r *Record) Settling() bool {
	return (r.Phase == Running || r.Phase == Committed) && r.Busy()
}

// Holds reports whether the record still has a reason to keep its namespace
// frozen: a transaction under way, or tasks that are kept.
func (r *Record) Holds() bool {
	switch r.Phase {
	case Running, Committed:
		return r.Settling()
	case Held, Isolated:
		return r.Alive()
	}
	return false
}

// Waits reports whether the record stands for a freeze that waits, within its
// time to live, for a restore or for somebody to thaw it.
func (r *Record) Waits() bool {
	waiting := r.Phase == Ended || r.Phase == Frozen || r.Phase == Held && !r.Alive()
	return waiting && time.Now().Before(r.Until)
}

// MakeDir makes Dir, and refuses one that others than root could have filled.
func MakeDir() error {
	if err := os.Mkdir(Dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the state directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(Dir, &st); err != nil {
		return fmt.Errorf("look at the state directory %s: %w", Dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != 0 || st.Mode&0o077 != 0 {
		return fmt.Errorf("the state directory %s is not a directory of root with mode 0700: remove it", Dir)
	}
	return nil
}

// Save writes the record, in one step.
func (r *Record) Save() error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the record of %s: %w", r.ID, err)
	}
	path := recordPath(r.ID)
	tmp := path + ".new"
	err = os.WriteFile(tmp, data, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("write the record of %s: %w", r.ID, err)
	}
	return nil
}

// Remove deletes the record; that there is none is no error.
func (r *Record) Remove() error {
	if err := os.Remove(recordPath(r.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the record of %s: %w", r.ID, err)
	}
	return nil
}

// Load reads the record called id. The error wraps os.ErrNotExist if there is none.
func Load(id string) (*Record, error) {
	data, err := os.ReadFile(recordPath(id))
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read the record %s: %w (remove the file if nothing is frozen)", recordPath(id), err)
	}
	return &r, nil
}

// All returns every record. Unreadable ones are reported beside the others.
func All() ([]*Record, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var (
		all  []*Record
		errs []error
	)
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		r, err := Load(id)
		switch {
		case err == nil:
			all = append(all, r)
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// Of returns the records that concern a namespace. One that is about a former
// namespace with the same inode is stale and is removed. What cannot be read
// is left out: it must not keep anybody from thawing; [All] reports it.
func Of(ns *netns.Namespace) ([]*Record, error) {
	cookie, err := ns.Cookie()
	if err != nil {
		return nil, err
	}
	all, _ := All()
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
	return of, err
}

// Over reports whether nobody needs the record any more: its time to live is
// over, no settler has it, and no process of it lives.
func (r *Record) Over() bool {
	return time.Now().After(r.Until) && !r.Alive() && !r.Settling()
}

// Sweep removes the sockets and locks of settlers that were killed, where no
// record is left for which another one could go on.
func Sweep() {
	locks, _ := filepath.Glob(lockPath("*"))
	for _, path := range locks {
		id := strings.TrimSuffix(filepath.Base(path), ".lock")
		if _, err := os.Stat(recordPath(id)); errors.Is(err, os.ErrNotExist) && !held(path) {
			_ = os.Remove(Socket(id))
			_ = os.Remove(path)
		}
	}
}

// Socket returns the path of the socket on which the settler of the transaction
// takes CRIU's actions.
func Socket(id string) string { return filepath.Join(Dir, id+".sock") }

func recordPath(id string) string { return filepath.Join(Dir, id+".json") }
func lockPath(id string) string   { return filepath.Join(Dir, id+".lock") }

// Lock takes the transaction for this process; the kernel gives it back when
// the process ends, however it ends. It fails if another one keeps it: whoever
// only looks whether it is taken has it for a moment.
func Lock(id string) (*os.File, error) {
	const patience = 500 * time.Millisecond
	f, err := os.OpenFile(lockPath(id), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = flock(f, patience)
	}
	if err != nil {
		if f != nil {
			_ = f.Close()
		}
		return nil, fmt.Errorf("lock transaction %s: %w", id, err)
	}
	return f, nil
}

// flock waits for an exclusive lock, but not for ever.
func flock(f *os.File, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline)) {
			return err
		}
	}
}

// Unlock gives the transaction back and removes the lock's file and the socket.
func Unlock(id string, f *os.File) {
	_ = os.Remove(Socket(id))
	_ = os.Remove(lockPath(id))
	_ = f.Close()
}

// held reports whether some process has the lock.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // opened for reading
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return errors.Is(err, unix.EWOULDBLOCK)
}

// LockNetNS serialises changes of the rules in one namespace among all
// processes: the lock is on the namespace itself. It waits for others, which
// need moments, but not longer than an action of CRIU may take. The returned
// function releases it.
func LockNetNS(ns *netns.Namespace) (func(), error) {
	const patience = 10 * time.Second
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", ns.FD()))
	if err == nil {
		if err = flock(f, patience); err != nil {
			_ = f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s against other changes: %w (is another netfreeze at work there?)", ns, err)
	}
	return func() { _ = f.Close() }, nil
}

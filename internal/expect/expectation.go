// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// expectDir is where the expectations are, a file each.
const expectDir = record.Dir + "/expected"

// minContainer is how much of a container's id an expectation has to give: less
// would fit one container in some thousands by chance.
const minContainer = 12

// Expectation announces a restore: the network namespace that is set up next
// for this pod, for this container or with this address is to be frozen at its
// birth. Exactly one of the three is set. It ends by itself.
type Expectation struct {
	Pod       string     `json:"pod,omitempty"`       // namespace/name
	Container string     `json:"container,omitempty"` // beginning of the id
	Address   netip.Addr `json:"address,omitzero"`
	// Containers is how many are restored into the namespace, one after the other; it
	// stays frozen until the last one is there. 0 is one.
	Containers int       `json:"containers,omitempty"`
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until"`
	// Matched is when a namespace was frozen for it last, By what did that.
	Matched time.Time `json:"matched,omitzero"`
	By      string    `json:"by,omitempty"`
}

// Pod returns an expectation of the pod called NAMESPACE/NAME.
func Pod(pod string) (Expectation, error) {
	namespace, name, ok := strings.Cut(pod, "/")
	if !ok || !plain(namespace) || !plain(name) {
		return Expectation{}, code.New(code.Usage, fmt.Sprintf("%q is not a pod: give NAMESPACE/NAME, without patterns", pod))
	}
	return Expectation{Pod: pod}, nil
}

// Container returns an expectation of the container whose id begins so.
func Container(id string) (Expectation, error) {
	if !plain(id) {
		return Expectation{}, code.New(code.Usage, fmt.Sprintf("%q is not a container's id", id))
	}
	return Expectation{Container: id}, nil
}

// Address returns an expectation of a namespace with this address.
func Address(addr netip.Addr) (Expectation, error) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() {
		return Expectation{}, code.New(code.Usage, fmt.Sprintf("%s is not an address that one container can have", addr))
	}
	return Expectation{Address: addr}, nil
}

// plain reports whether s can be a name: no separator, no pattern, no blank.
func plain(s string) bool {
	return s != "" && !strings.ContainsAny(s, `/*?[]\`) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

// String names what is expected.
func (e *Expectation) String() string {
	switch {
	case e.Pod != "":
		return "pod " + e.Pod
	case e.Container != "":
		return "container " + e.Container
	}
	return "address " + e.Address.String()
}

// Newcomer is what is known about a network namespace that is being set up. Any
// field may be empty.
type Newcomer struct {
	identity.Container
	Addresses []netip.Addr
}

// Fits reports whether the newcomer is what is expected. The id of a container
// fits if it begins as expected, or is the same where it is short.
func (e *Expectation) Fits(n Newcomer) bool {
	switch {
	case e.Pod != "":
		return e.Pod == n.Pod
	case e.Container != "":
		return e.Container == n.ID || len(e.Container) >= minContainer && strings.HasPrefix(n.ID, e.Container)
	}
	return e.Address.IsValid() && slices.Contains(n.Addresses, e.Address)
}

// Expect records e for a time from now. One that is there for the same is
// prolonged or shortened.
func (e Expectation) Expect(d time.Duration) error {
	if err := record.MakeDir(); err != nil {
		return err
	}
	if err := os.Mkdir(expectDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the directory of expectations: %w", err)
	}
	e.Since = time.Now()
	e.Until = e.Since.Add(d)
	return e.save()
}

// Match records that a namespace was frozen for e.
func (e Expectation) Match(by string) error {
	e.Matched, e.By = time.Now(), by
	return e.save()
}

func (e Expectation) save() error {
	data, err := json.Marshal(e)
	if err == nil {
		err = safefile.Write(e.path(), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record the expectation of %s: %w", &e, err)
	}
	return nil
}

// path is the file of what is expected: a pod's name may be longer than a
// file's.
func (e *Expectation) path() string {
	return filepath.Join(expectDir, fmt.Sprintf("%x.json", sha256.Sum256([]byte(e.String()))))
}

// Cancel ends the expectation of the same and reports whether there was one.
func (e Expectation) Cancel() (bool, error) {
	err := os.Remove(e.path())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cancel the expectation of %s: %w", &e, err)
	}
	return true, nil
}

// Expectations returns those that are in force, the next one to end first.
// Files of those whose time is over are removed, but for those of [Unmet].
// Unreadable ones are reported beside the others.
func Expectations() ([]Expectation, error) {
	all, err := recorded()
	return slices.DeleteFunc(all, func(e Expectation) bool { return e.over() }), err
}

// Unmet returns those whose time has ended, not more than a day ago, and that nothing
// has met: what was expected came otherwise than expected, or not at all.
func Unmet() ([]Expectation, error) {
	all, err := recorded()
	return slices.DeleteFunc(all, func(e Expectation) bool { return !e.over() }), err
}

// remembered is how long what was not met is told of.
const remembered = 24 * time.Hour

func (e *Expectation) over() bool { return time.Now().After(e.Until) }

// recorded returns those in force and those of Unmet.
func recorded() ([]Expectation, error) {
	entries, err := os.ReadDir(expectDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the expectations: %w", err)
	}
	var (
		all  []Expectation
		errs []error
	)
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".json") {
			continue // being written
		}
		path := filepath.Join(expectDir, entry.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // cancelled meanwhile
		}
		var e Expectation
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("read the expectation %s: %w (remove the file and expect again)", path, err))
		case e.over() && (!e.Matched.IsZero() || time.Since(e.Until) > remembered):
			errs = append(errs, removeExpired(path, data))
		default:
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Expectation) int { return a.Until.Compare(b.Until) })
	return all, errors.Join(errs...)
}

// removeExpired removes a file unless it was renewed since it was read.
func removeExpired(path string, read []byte) error {
	now, err := os.ReadFile(path)
	if err == nil && string(now) == string(read) {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an expectation whose time is over: %w", err)
	}
	return nil
}

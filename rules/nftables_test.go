// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/backend"
	"github.com/criu-netfreeze/criu-netfreeze/internal/netns/nstest"
)

// failing is a visitor whose first visit fails with err.
type failing struct {
	visitor
	err error
}

func (v *failing) Do(fn func() error) error {
	if err := v.err; err != nil {
		v.err = nil
		return err
	}
	return v.visitor.Do(fn)
}

// TestErrorIsNotAbsence fails with errors that a kernel without nf_tables answers
// with, but for another reason. They must not make a frozen namespace look open.
func TestErrorIsNotAbsence(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	must(t, open(t, ns, backend.NFTables).Freeze(time.Minute))
	for _, want := range []error{unix.EINVAL, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT} {
		there, err := lookForBackends(&failing{ns, want})
		if !errors.Is(err, want) {
			t.Errorf("%v became %v, %v", want, there, err)
		}
	}
}

// TestGuardsErrorIsNotAbsence does the same with a namespace that cannot be entered:
// setns(2) fails with EINVAL because the descriptor is of another type.
func TestGuardsErrorIsNotAbsence(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	other, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Dup3(other, ns.FD(), unix.O_CLOEXEC))
	must(t, unix.Close(other))
	if all, err := Guards(ns); !errors.Is(err, unix.EINVAL) {
		t.Errorf("guards: %v, %v, want %v", all, err, unix.EINVAL)
	}
	if locks, err := CRIULocks(ns); !errors.Is(err, unix.EINVAL) {
		t.Errorf("locks: %v, %v, want %v", locks, err, unix.EINVAL)
	}
}

// TestAbsence asks for a subsystem of nfnetlink that no kernel has.
func TestAbsence(t *testing.T) {
	t.Parallel()
	c, err := dialNFT(nstest.New(t))
	must(t, err)
	defer func() { must(t, c.Close()) }()
	const none = 200 // above NFNL_SUBSYS_COUNT
	if _, err := c.getGeneration(none); !errors.Is(err, errWithoutNFT) {
		t.Errorf("a subsystem that no kernel has: %v", err)
	}
	_, err = c.generation()
	must(t, err)
}

// TestConsistent changes rules while they are read, so that they are read again.
func TestConsistent(t *testing.T) {
	t.Parallel()
	c, err := dialNFT(nstest.New(t))
	must(t, err)
	defer func() { must(t, c.Close()) }()
	reads := 0
	must(t, c.consistent(func() error {
		if reads++; reads > 2 {
			return nil
		}
		c.AddTable(&nftables.Table{Name: fmt.Sprint("t", reads), Family: nftables.TableFamilyINet})
		return c.Flush()
	}))
	if reads != 3 {
		t.Errorf("read %d times, want once after two changes", reads)
	}
	broken := errors.New("broken")
	if err := c.consistent(func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

// TestBusyNamespace looks for a table while somebody else changes many others. The
// kernel lists them in parts, and a table that moves up between two parts is in
// neither of them. It keeps the machine busy, so no other test runs meanwhile.
func TestBusyNamespace(t *testing.T) {
	const others, lookers, rounds = 300, 4, 30
	ns := nstest.New(t)
	c, err := dialNFT(ns)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	must(t, c.sock.SetReadBuffer(4<<20)) // for the answers to a large batch
	must(t, c.makeRoom(2*others))
	change := func(do func(*nftables.Table)) {
		for i := range others {
			do(&nftables.Table{Name: fmt.Sprint("other", i), Family: nftables.TableFamilyINet})
		}
	}
	create := func(table *nftables.Table) { c.CreateTable(table) }
	ours := &nftables.Table{Name: "CRIU-1", Family: nftables.TableFamilyINet}
	change(create)
	create(ours)
	must(t, c.commit("begin"))

	stop := make(chan struct{})
	var all sync.WaitGroup
	for range lookers {
		all.Go(func() {
			for looks := 0; ; looks++ {
				select {
				case <-stop:
					t.Logf("looked %d times", looks)
					return
				default:
				}
				if tables, _, err := criuNFT(ns); err != nil || len(tables) != 1 {
					t.Errorf("CRIU's tables: %v, %v, want one", tables, err)
				}
			}
		})
	}
	for range rounds {
		change(c.DelTable)
		must(t, c.commit("remove other tables")) // which moves ours to the front
		change(create)
		c.DelTable(ours)
		create(ours)
		must(t, c.commit("move ours behind the others"))
	}
	close(stop)
	all.Wait()
}

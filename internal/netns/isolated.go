// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"slices"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

const (
	hostNet   = "/proc/1/ns/net"    // see OpenHost
	leaderNet = "/proc/self/ns/net" // the thread group leader's, hence the process's
)

// initialIno is the inode of the network namespace that the kernel boots with, on
// kernels where it is fixed (since Linux 6.18, NET_NS_INIT_INO in linux/nsfs.h).
// Older ones number network namespaces from 0xF0000000 upwards, so there no other
// one has it. By this even a process whose pid 1 is a container's recognizes the
// host's namespace.
const initialIno = 0xEFFFFFF9

// RefusedError says that a namespace must not be frozen as a whole.
type RefusedError struct {
	Namespace string // which one, as in a message
	Why       string // the reason, and what to do about it if anything can be done
}

// Error returns the whole message.
func (e *RefusedError) Error() string {
	return code.Text(e.Code(), fmt.Sprintf("network namespace %s must not be frozen: %s", e.Namespace, e.Why))
}

// Code implements [code.Coder].
func (*RefusedError) Code() code.Code { return code.HostNetNS }

// Isolated is a network namespace that is neither the host's nor that of the
// program that freezes it, so that freezing it cuts off nothing else. Only
// [Namespace.Isolate] returns one.
type Isolated struct {
	*Namespace
	others []ID // what Isolate was given
}

// Isolate returns n as a namespace that may be frozen as a whole. The error is
// a [*RefusedError] when n is the network namespace of pid 1, of the calling
// process or thread, or one of others (such as the one CRIU runs in), and also
// when any of these cannot be read, since n might be that one.
// The result shares n's handle: closing either closes both.
func (n *Namespace) Isolate(others ...ID) (*Isolated, error) {
	i := &Isolated{Namespace: n, others: slices.Clone(others)}
	if err := i.check(threadNet, "it is the network namespace that this thread runs in"); err != nil {
		return nil, err
	}
	if err := i.verify(); err != nil {
		return nil, err
	}
	return i, nil
}

// Do is [Namespace.Do], after checking again that the namespace is not the host's
// nor one of the others.
func (i *Isolated) Do(fn func() error) error {
	return i.Namespace.Do(func() error {
		if err := i.verify(); err != nil {
			return err
		}
		return fn()
	})
}

// verify refuses what must not be frozen. Other than Isolate it may also be called
// during a visit, when the thread's own namespace is the visited one.
func (i *Isolated) verify() error {
	if i.id.Ino == initialIno {
		return i.refuse("it is the host's (the one that the kernel started with)")
	}
	if err := i.check(hostNet, "it is the host's (that of pid 1)"); err != nil {
		return err
	}
	if err := i.check(leaderNet, "it is the one that this program runs in"); err != nil {
		return err
	}
	if slices.Contains(i.others, i.id) {
		return i.refuse("it is the one that CRIU runs in, which the host or the container engine lives in too")
	}
	return nil
}

// check refuses with the reason why if path leads to the same namespace, or if that
// cannot be told.
func (i *Isolated) check(path, why string) error {
	other, err := statID(path)
	if err != nil {
		return i.refuse(fmt.Sprintf("it cannot be told apart from the host's: %v (run as root, with CAP_SYS_PTRACE and in the host's pid namespace)", err))
	}
	if other == i.id {
		return i.refuse(why)
	}
	return nil
}

func (i *Isolated) refuse(why string) error {
	return &RefusedError{Namespace: i.String(), Why: why}
}

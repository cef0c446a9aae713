// SPDX-License-Identifier: Apache-2.0

// Package code gives every error that a user can meet a short code, such as NF401,
// which docs/troubleshooting.md explains. An error's text ends with its code, so that
// it is there wherever the error is printed: on a terminal, in CRIU's log, in syslog.
//
// The action-script links this package, so it does without fmt.
package code

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
)

// Code is the number of a kind of error. The hundreds say what it is about.
type Code int

// The codes. What each one means, and the remedy, is in docs/troubleshooting.md.
const (
	Usage     Code = 101 // a command was given what it cannot use
	Config    Code = 102 // netfreeze.toml, or what a runtime says of a container, has a mistake
	Target    Code = 103 // TARGET names nothing, or too much
	Root      Code = 104 // this needs root of the host
	NotByCRIU Code = 105 // an action-script, a hook or a plugin was called by the wrong program

	CheckFailed Code = 106 // netfreeze doctor found something that fails

	NoBackend     Code = 201 // no packet filter can do it
	FilterBusy    Code = 202 // the rules could not be read
	PacketSockets Code = 203 // packet sockets can still send
	Kernel        Code = 204 // the kernel lacks something
	NoFreeze      Code = 205 // this cannot be frozen, or not for so long

	HostNetNS  Code = 301 // the namespace must not be frozen
	NetNSGone  Code = 302 // there is no such network namespace
	WrongNetNS Code = 303 // the kernel entered another namespace
	TaskGone   Code = 304 // the process is gone, or /proc does not describe it
	TimeNS     Code = 305 // the start times of processes cannot be told

	Expired       Code = 401 // the freeze ended before the images were complete
	NewConnection Code = 402 // bytes came in on a connection that is not in the images
	AlreadyHeld   Code = 403 // something else is held or frozen there
	SharedWorkDir Code = 404 // two dumps share a work directory
	ImageDir      Code = 405 // the image directory is not known
	Handshakes    Code = 406 // handshakes are in flight
	DumpFailed    Code = 407 // CRIU's dump did not succeed

	NoAddress     Code = 501 // the restored namespace lacks an address
	StillOpen     Code = 502 // a connection of the images is open already
	InQueue       Code = 503 // a connection of the images waits to be accepted
	HostTree      Code = 504 // the images are of a tree in the host's namespace
	RestoreFailed Code = 505 // CRIU's restore did not succeed
	Newcomer      Code = 506 // a container has started behind another one's freeze
	PortTaken     Code = 507 // a port on which a restored socket listens is taken

	NoTransaction    Code = 601 // nothing began before this action
	OtherTransaction Code = 602 // something else is under way
	NoSettler        Code = 603 // the settler does not answer
	Versions         Code = 604 // programs of two versions
	StillStopped     Code = 605 // tasks did not end, or did not go on
	CRIULock         Code = 606 // CRIU's own lock cannot be told from a leftover

	Images    Code = 701 // an image of CRIU is damaged, or none
	TooLarge  Code = 702 // a file or an entry is larger than is read
	Untrusted Code = 703 // a file that others than root can change, or none that is regular
	Record    Code = 704 // a record is damaged, or a newer version's

	InstallConflict Code = 801 // a configuration file contradicts ours
	InstallPath     Code = 802 // a path cannot be installed
	InstallRace     Code = 803 // a configuration file was changed meanwhile
	CNIList         Code = 804 // a CNI list cannot be used

	System     Code = 901 // the system refused an operation
	NoSpace    Code = 902 // a disk is full, or read-only
	Forbidden  Code = 903 // a capability, or the permission, is missing
	NoResource Code = 904 // memory, descriptors or processes are used up
)

// String returns the code as it is printed: "NF401".
func (c Code) String() string { return "NF" + strconv.Itoa(int(c)) }

// Coder is an error that has a code. Its text ends with it: see [Text].
type Coder interface {
	error
	Code() Code
}

// Text returns an error's text with its code at the end. The newlines that programs
// end their messages with are dropped.
func Text(c Code, text string) string { return strings.TrimRight(text, "\n") + " [" + c.String() + "]" }

// coded is an error that was given a code.
type coded struct {
	code Code
	err  error
}

// Error implements error.
func (e coded) Error() string { return Text(e.code, e.err.Error()) }

// Code implements Coder.
func (e coded) Code() Code { return e.code }

// Unwrap returns the error without its code.
func (e coded) Unwrap() error { return e.err }

// New returns an error with a text.
func New(c Code, text string) error { return coded{c, errors.New(text)} }

// Wrap gives err a code, unless it is nil or has one.
func Wrap(c Code, err error) error {
	if _, has := Of(err); has || err == nil {
		return err
	}
	return coded{c, err}
}

// Of returns the code of an error, or of the first one in it that has a code.
func Of(err error) (Code, bool) {
	if e, ok := errors.AsType[Coder](err); ok {
		return e.Code(), true
	}
	return 0, false
}

// Any gives err a code in any case: where it has none it came from the system, and
// gets what its number stands for.
func Any(err error) error {
	if err == nil {
		return nil
	}
	return Wrap(bySystem(err), err)
}

// bySystem returns the code of an error of the system.
func bySystem(err error) Code {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return System
	}
	switch errno {
	case syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EIO:
		return NoSpace
	case syscall.EPERM, syscall.EACCES:
		return Forbidden
	case syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.ENOBUFS:
		return NoResource
	}
	return System
}

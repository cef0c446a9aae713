// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"fmt"
	"slices"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// RefusedError says that an action came in a state that does not allow it.
type RefusedError struct {
	Action string // what CRIU asked for
	State  string // the state of the dump or restore
}

// Error returns the whole message.
func (e *RefusedError) Error() string {
	return code.Text(e.Code(), fmt.Sprintf("%s cannot come when the transaction is %s; nothing was changed", e.Action, e.State))
}

// Code implements [code.Coder].
func (*RefusedError) Code() code.Code { return code.OtherTransaction }

// state is the state of a dump or of a restore.
type state interface {
	comparable
	fmt.Stringer
}

// machine has a state and refuses transitions that are not listed.
type machine[S state] struct {
	now     S
	allowed map[S][]S // from each state
}

// check refuses an action that would lead from the present state to next.
func (m *machine[S]) check(action string, next S) error {
	if m.now != next && !slices.Contains(m.allowed[m.now], next) {
		return &RefusedError{Action: action, State: m.now.String()}
	}
	return nil
}

// to makes the transition. It is a mistake of the program if it is not allowed.
func (m *machine[S]) to(next S) {
	if err := m.check("a transition to "+next.String(), next); err != nil {
		panic(err)
	}
	m.now = next
}

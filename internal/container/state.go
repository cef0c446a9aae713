// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
)

// ReadState reads the state that a runtime passes to a hook on its standard input
// (OCI runtime specification, "State"). It returns the container and the pid of
// its first process.
func ReadState(r io.Reader) (*Container, int, error) {
	var st specs.State
	if err := decode(r, &st); err != nil {
		return nil, 0, fmt.Errorf("read the container's state from stdin: %w", err)
	}
	if st.ID == "" || st.Pid <= 0 {
		return nil, 0, code.New(code.NotByCRIU, "the state on stdin names no container with a process: this is for a runtime to call, as a createRuntime hook")
	}
	c := &Container{Container: identity.Container{ID: st.ID, Annotations: st.Annotations}, Bundle: st.Bundle}
	c.nameFromAnnotations()
	return c, st.Pid, nil
}

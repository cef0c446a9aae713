package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ReadState reads the state that a runtime gives to a hook (OCI runtime
// specification, "State"), and returns the container and the pid of its first
// process.
func ReadState(r io.Reader) (*Container, int, error) {
	const limit = 16 << 20 // annotations are kilobytes
	var st specs.State
	if err := json.NewDecoder(io.LimitReader(r, limit)).Decode(&st); err != nil {
		return nil, 0, fmt.Errorf("read the container's state from stdin: %w", err)
	}
	if st.ID == "" || st.Pid <= 0 {
		return nil, 0, errors.New("the state on stdin names no container with a process: this is for a runtime to call, as a createRuntime hook")
	}
	c := &Container{ID: st.ID, Bundle: st.Bundle, Annotations: st.Annotations}
	c.name()
	return c, st.Pid, nil
}

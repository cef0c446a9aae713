// SPDX-License-Identifier: Apache-2.0

// Package container finds out which container a dump or a restore is about. It
// looks at the runtime that started CRIU: its command line, the state that it
// keeps and the OCI bundle. So the runtime need not pass anything to the hooks.
package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/identity"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
)

// Container is what is known about a container; every field may be empty.
type Container struct {
	identity.Container
	Bundle string // directory of config.json

	// HasNetNS says whether the bundle asks for a network namespace, and
	// NetNSPath for which one; if empty, the runtime makes it, or lets CRIU do so.
	HasNetNS  bool
	NetNSPath string
}

// Runtime returns the container that CRIU's parent process, an OCI runtime, dumps
// or restores. criu is CRIU's pid. It returns nil without an error if the parent
// is no OCI runtime doing that, but a shell, a service or init, say.
func Runtime(criu int) (*Container, error) {
	st, err := proc.ReadStat(criu)
	if err != nil {
		return nil, err
	}
	cmd, ok := parseCommand(proc.Cmdline(st.PPID))
	if !ok {
		return nil, nil
	}
	c := &Container{Container: identity.Container{ID: cmd.id}, Bundle: cmd.bundle}
	if c.Bundle == "" && cmd.verb == "checkpoint" {
		c.Bundle = bundleFromState(cmd)
	}
	guessed := c.Bundle == "" && cmd.verb == "restore"
	if guessed {
		c.Bundle = "." // the runtimes' default: their working directory
	}
	if c.Bundle == "" {
		return c, nil
	}
	if !filepath.IsAbs(c.Bundle) {
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", st.PPID))
		if err != nil {
			return nil, fmt.Errorf("find the bundle of container %s: %w", c.ID, err)
		}
		c.Bundle = filepath.Join(cwd, c.Bundle)
	}
	if err := c.readBundle(); guessed && errors.Is(err, os.ErrNotExist) {
		return nil, nil // another program with such a command line
	} else if err != nil {
		return nil, fmt.Errorf("read the bundle of container %s: %w", c.ID, err)
	}
	return c, nil
}

// command is the part of a runtime's command line that matters here.
type command struct {
	verb    string // checkpoint or restore
	id      string
	root    string
	bundle  string
	runtime string
}

// parseCommand takes apart the command line that runc, crun and similar runtimes
// share: RUNTIME [global options] checkpoint|restore [options] ID. It reports
// false for anything else.
func parseCommand(args []string) (command, bool) {
	var c command
	if len(args) < 3 {
		return c, false
	}
	c.runtime = filepath.Base(args[0])
	for i := 1; i < len(args); i++ {
		if c.verb == "" && filepath.Base(args[i]) == "criu" {
			return c, false // sudo, or a shell, and CRIU's own command line
		}
		name, value, attached := strings.Cut(args[i], "=")
		switch name {
		case "--root", "-root", "--bundle", "-bundle", "-b":
			if !attached && i+1 < len(args) {
				i++
				value = args[i]
			}
			if strings.HasSuffix(name, "root") {
				c.root = value
			} else {
				c.bundle = value
			}
		case "checkpoint", "restore":
			if c.verb == "" {
				c.verb = name
			}
		}
	}
	last := args[len(args)-1]
	if c.verb == "" || strings.HasPrefix(last, "-") || last == c.verb {
		return c, false
	}
	c.id = last
	return c, true
}

// bundleFromState looks the bundle up in the state that the runtime keeps: runc
// has it in state.json as a label, crun in status. It returns "" if there is
// nothing; only the container's id is known then.
func bundleFromState(cmd command) string {
	roots := []string{cmd.root}
	if cmd.root == "" {
		roots = []string{filepath.Join("/run", cmd.runtime), "/run/runc", "/run/crun"}
	}
	for _, root := range roots {
		dir := filepath.Join(root, filepath.Base(cmd.id))
		var st runtimeState
		if readJSON(filepath.Join(dir, "state.json"), &st) == nil ||
			readJSON(filepath.Join(dir, "status"), &st) == nil {
			return st.bundle()
		}
	}
	return ""
}

// runtimeState is the part that matters of runc's state.json or crun's status.
type runtimeState struct {
	Bundle string `json:"bundle"`
	Config struct {
		Labels []string `json:"labels"`
	} `json:"config"`
}

func (st *runtimeState) bundle() string {
	for _, l := range st.Config.Labels {
		if b, ok := strings.CutPrefix(l, "bundle="); ok {
			return b
		}
	}
	return st.Bundle
}

// readBundle reads names, annotations and the network namespace of config.json.
func (c *Container) readBundle() error {
	var spec specs.Spec
	if err := readJSON(filepath.Join(c.Bundle, "config.json"), &spec); err != nil {
		return err
	}
	c.take(&spec)
	return nil
}

// take takes over what a bundle says.
func (c *Container) take(spec *specs.Spec) {
	c.Annotations = spec.Annotations
	c.nameFromAnnotations()
	if spec.Linux == nil {
		return
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			c.HasNetNS, c.NetNSPath = true, ns.Path
		}
	}
}

// nameFromAnnotations fills in the names of the container and its pod from the
// annotations that CRI-O, containerd's CRI plugin and the kubelet set.
func (c *Container) nameFromAnnotations() {
	pick := func(keys ...string) string {
		for _, k := range keys {
			if v := c.Annotations[k]; v != "" {
				return v
			}
		}
		return ""
	}
	namespace := pick("io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace", "io.kubernetes.cri.sandbox-namespace")
	if pod := pick("io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName", "io.kubernetes.cri.sandbox-name"); pod != "" {
		c.Pod = namespace + "/" + pod
	}
	c.Name = pick("io.kubernetes.container.name", "io.kubernetes.cri.container-name", "io.kubernetes.cri-o.ContainerName")
}

// maxJSON is how many bytes are read of a file that a runtime writes, which has
// kilobytes.
const maxJSON = 16 << 20

// readJSON reads a file that a container runtime wrote into v. It never waits for the
// file: a FIFO in its place would hang the dump.
func readJSON(path string, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return code.New(code.Untrusted, fmt.Sprintf("%s is not a regular file", path))
	}
	if err := decode(f, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// decode reads one JSON value into v.
func decode(r io.Reader, v any) error {
	limited := &io.LimitedReader{R: r, N: maxJSON}
	err := json.NewDecoder(limited).Decode(v)
	switch {
	case err == nil:
		return nil
	case limited.N == 0:
		return code.New(code.TooLarge, fmt.Sprintf("it is larger than the %d bytes that are read at most", maxJSON))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("it is cut short: %w", err)
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// runtimeEngine is an OCI runtime, named by its command.
type runtimeEngine string

func (r runtimeEngine) String() string { return string(r) }

func (k *task) bundle() string  { return k.dir }
func (k *task) pidFile() string { return filepath.Join(k.dir, "pid") }

func (r runtimeEngine) start(k *task, args []string) {
	k.t.Helper()
	root := filepath.Join(k.dir, "root")
	for _, dir := range []string{"proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			k.t.Fatal(err)
		}
	}
	mustRun(k.t, "", "", "cp", trafficProgram, filepath.Join(root, "traffic"))
	args = append([]string{"/traffic"}, args...)
	r.configure(k, append(args, "--stats", "/data/stats", "--log", "/data/log"))
	if err := r.run("run", "--detach", "--bundle", k.bundle(), "--pid-file", k.pidFile(), k.id); err != nil {
		k.t.Fatal(err)
	}
	k.readPid()
}

// configure writes the bundle's configuration. With a nil argv it keeps the
// program and changes the namespace only, for a restore elsewhere.
func (r runtimeEngine) configure(k *task, argv []string) {
	k.t.Helper()
	path := filepath.Join(k.bundle(), "config.json")
	if argv == nil {
		var old specs.Spec
		if b, err := os.ReadFile(path); err != nil {
			k.t.Fatal(err)
		} else if err := json.Unmarshal(b, &old); err != nil {
			k.t.Fatal(err)
		}
		argv = old.Process.Args
	}
	all := []string{"CAP_NET_BIND_SERVICE", "CAP_KILL"}
	spec := specs.Spec{
		Version:     "1.0.2",
		Annotations: k.annotations,
		Root:        &specs.Root{Path: "root"},
		Process: &specs.Process{
			Args: argv, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/" + k.id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace, Path: k.host.pidNS},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: netnsPath(k.host.netns)},
			},
		},
	}
	if k.host.hooks != nil {
		spec.Hooks = k.host.hooks
		last := &spec.Linux.Namespaces[len(spec.Linux.Namespaces)-1]
		last.Path = ""
	}
	b, err := json.MarshalIndent(spec, "", "\t")
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// run runs the runtime. The container inherits its standard files, which have to
// be /dev/null: the runtime and CRIU know how to open that again inside.
func (r runtimeEngine) run(args ...string) error {
	log, err := os.CreateTemp("", string(r))
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args = append([]string{string(r), "--log", log.Name()}, args...)
	if err := newCommand(ctx, "", args...).Run(); err != nil {
		output, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, output)
	}
	return nil
}

func (k *task) readPid() {
	k.t.Helper()
	b, err := os.ReadFile(k.pidFile())
	if err != nil {
		k.t.Fatal(err)
	}
	if k.pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
		k.t.Fatal(err)
	}
}

// cgroups adds the option that keeps crun from having CRIU restore control
// groups: CRIU would do so in every version 1 hierarchy of the machine, which the
// lab does not own. runc does not ask for it on a machine with version 2.
func (r runtimeEngine) cgroups(args []string) []string {
	if r == "crun" {
		return append(args, "--manage-cgroups-mode", "ignore")
	}
	return args
}

func (r runtimeEngine) dump(k *task, leaveRunning bool, options ...string) error {
	args := []string{"checkpoint", "--image-path", k.images(), "--work-path", k.images(), "--tcp-established"}
	if leaveRunning {
		args = append(args, "--leave-running")
	}
	args = append(append(r.cgroups(args), options...), k.id)
	return withLog(r.run(args...), filepath.Join(k.images(), "dump.log"))
}

func (r runtimeEngine) restore(k *task, options ...string) error {
	r.configure(k, nil)
	args := []string{
		"restore", "--detach", "--bundle", k.bundle(), "--pid-file", k.pidFile(),
		"--image-path", k.images(), "--work-path", k.images(), "--tcp-established",
	}
	args = append(append(r.cgroups(args), options...), k.id)
	if err := r.run(args...); err != nil {
		return withLog(err, filepath.Join(k.images(), "restore.log"))
	}
	k.readPid()
	return nil
}

func (r runtimeEngine) remove(k *task) {
	// It may have been removed already.
	if err := r.run("delete", "--force", k.id); err != nil && !strings.Contains(err.Error(), "does not exist") {
		k.t.Errorf("remove container: %v", err)
	}
}

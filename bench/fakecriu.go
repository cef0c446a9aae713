// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// fakeCRIU plays CRIU's part for action-scripts: the helper program caller
// executes a script and measures its time, without everything else that CRIU
// does.
type fakeCRIU struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string // its working directory, where CRIU's stats would be
}

// startFakeCRIU starts the helper program. It ignores its arguments: they are
// there for the hook, which reads those of CRIU.
func startFakeCRIU(args ...string) (*fakeCRIU, error) {
	dir, err := os.MkdirTemp("", "fakecriu")
	if err != nil {
		return nil, err
	}
	c := &fakeCRIU{cmd: exec.Command(filepath.Join(built, "caller"), args...), dir: dir}
	c.cmd.Dir = dir
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	log, err3 := os.Create(filepath.Join(dir, "log"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd.Stderr = log
	c.in, c.out = in, bufio.NewReader(out)
	return c, c.cmd.Start()
}

// act calls a script for one action, and returns the time from its exec to its
// exit, in milliseconds. The pid of the root task, unless it is 0, and the image
// directory, unless it is "", are passed as CRIU would pass them.
func (c *fakeCRIU) act(script, action string, pid int, dir string) (float64, error) {
	root, images := "-", "-"
	if pid != 0 {
		root = fmt.Sprint(pid)
	}
	if dir != "" {
		images = dir
	}
	if _, err := fmt.Fprintln(c.in, script, action, root, images); err != nil {
		return 0, err
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	var ns, code int
	if _, err := fmt.Sscan(line, &ns, &code); err != nil {
		return 0, err
	}
	if code != 0 {
		log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		return 0, fmt.Errorf("%s: %s: exit code %d: %s", script, action, code, strings.TrimSpace(string(log)))
	}
	return float64(ns) / 1e6, nil
}

// end ends the program, as CRIU ends, and returns when the settler has ended too.
func (c *fakeCRIU) end() error {
	id := fmt.Sprintf("/run/criu-netfreeze/%d@*.sock", c.cmd.Process.Pid)
	err := errors.Join(c.in.Close(), c.cmd.Wait())
	return errors.Join(err, os.RemoveAll(c.dir), waitUntil("the settler's end", func() bool {
		socks, _ := filepath.Glob(id)
		return len(socks) == 0
	}))
}

// settlers returns the pids of all running settlers.
func settlers() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f)
		if strings.HasPrefix(string(line), settler+"\x00") {
			var pid int
			if _, err := fmt.Sscanf(f, "/proc/%d/", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// memory returns the value in KiB of a line "NAME: N kB" of a file in /proc/PID,
// 0 if there is none.
func memory(pid int, file, name string) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			var kib float64
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				return kib
			}
		}
	}
	return 0
}

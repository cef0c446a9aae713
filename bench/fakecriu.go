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

// caller plays CRIU for an action-script: the program caller executes it and
// takes the time, without all else that CRIU does meanwhile.
type caller struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string // its working directory, where CRIU's stats would be
}

// startCaller starts one. The arguments are only there to be read by the hook,
// as those of CRIU.
func startCaller(args ...string) (*caller, error) {
	dir, err := os.MkdirTemp("", "caller")
	if err != nil {
		return nil, err
	}
	c := &caller{cmd: exec.Command(filepath.Join(built, "caller"), args...), dir: dir}
	c.cmd.Dir = dir
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	log, err3 := os.Create(filepath.Join(dir, "log"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the program has it
	c.cmd.Stderr = log
	c.in, c.out = in, bufio.NewReader(out)
	return c, c.cmd.Start()
}

// act has a script do one action, and returns the time from its exec to its
// exit, in milliseconds. The pid, and the directory if it is not "", are what
// CRIU would tell the script.
func (c *caller) act(script, action string, pid int, dir string) (float64, error) {
	who, where := "-", "-"
	if pid != 0 {
		who = fmt.Sprint(pid)
	}
	if dir != "" {
		where = dir
	}
	if _, err := fmt.Fprintln(c.in, script, action, who, where); err != nil {
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

// end is CRIU's end. It returns when the settler has ended, too.
func (c *caller) end() error {
	id := fmt.Sprintf("/run/criu-netfreeze/%d@*.sock", c.cmd.Process.Pid)
	err := errors.Join(c.in.Close(), c.cmd.Wait())
	return errors.Join(err, os.RemoveAll(c.dir), waitUntil("the settler's end", func() bool {
		socks, _ := filepath.Glob(id)
		return len(socks) == 0
	}))
}

// settlers returns the processes that settle transactions now.
func settlers() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f)
		if strings.HasPrefix(string(line), netfreeze+"\x00settle\x00") {
			var pid int
			if _, err := fmt.Sscanf(f, "/proc/%d/", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// memory reads a line "NAME: N kB" of a file in /proc/PID, in KiB.
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

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// What is asked of the kernel here is asked without any code of the programs under
// test.

// procState returns the letter of a process's state, 0 if there is no such process,
// and its parent.
func procState(pid int) (state byte, ppid int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	_, err = fmt.Sscanf(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " %c %d", &state, &ppid)
	if err != nil {
		return 0, 0
	}
	return state, ppid
}

func parentOf(pid int) int {
	_, ppid := procState(pid)
	return ppid
}

// zombie reports whether a process has ended.
func zombie(pid int) bool {
	state, _ := procState(pid)
	return state == 0 || state == 'Z' || state == 'X'
}

// childrenOf returns the children of a process's first thread.
func childrenOf(pid int) (pids []int) {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(list)) {
		n, _ := strconv.Atoi(f)
		pids = append(pids, n)
	}
	return pids
}

// treeOf returns a process and its descendants.
func treeOf(pid int) (pids []int) {
	pids = []int{pid}
	for _, c := range childrenOf(pid) {
		pids = append(pids, treeOf(c)...)
	}
	return pids
}

// proc is a process of the lab.
type proc struct {
	pid  int
	exe  string
	args []string
}

// ours reports whether it is a program of the suite under test.
func (p proc) ours() bool {
	switch strings.TrimSuffix(filepath.Base(p.exe), " (deleted)") {
	case "netfreeze", action.Hook, action.Settler:
		return true
	}
	return false
}

func processes() (all []proc) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		exe, err := os.Readlink(dir + "/exe")
		if err != nil || zombie(pid) {
			continue
		}
		line, _ := os.ReadFile(dir + "/cmdline")
		all = append(all, proc{pid, exe, strings.Split(string(line), "\x00")})
	}
	return all
}

// repaired counts the TCP sockets of a process that are in repair mode.
func repaired(pid int) (n int, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, err
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		number, _ := strconv.Atoi(filepath.Base(link))
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if errors.Is(err, unix.EBADF) {
			continue // closed since
		}
		if err != nil {
			return n, fmt.Errorf("duplicate descriptor %d of process %d: %w", number, pid, err)
		}
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && kind == unix.IPPROTO_TCP {
			if mode, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR); err == nil && mode > 0 {
				n++
			}
		}
		_ = unix.Close(fd)
	}
	return n, nil
}

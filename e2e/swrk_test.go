// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7"
	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"
)

// swrkCRIU is a program that uses CRIU by RPC as runtimes do: "criu swrk", which serves
// the one who has started it.
type swrkCRIU struct{ plainCRIU }

func (swrkCRIU) String() string { return "swrk" }

// dump dumps with go-criu.
func (swrkCRIU) dump(k *task, leaveRunning bool, _ ...string) error {
	return dumpByRPC(k, leaveRunning, func(opts *rpc.CriuOpts) error { return criu.MakeCriu().Dump(opts, nil) })
}

// restore starts CRIU itself, since go-criu gives it no descriptors, and hands it the
// network namespace.
func (swrkCRIU) restore(k *task, _ ...string) error {
	dir, err := os.Open(k.images())
	if err != nil {
		return err
	}
	defer dir.Close()
	ns, err := os.Open(netnsPath(k.host.netns))
	if err != nil {
		return err
	}
	defer ns.Close()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "criu")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := newCommand(ctx, "", "criu", "swrk", "3")
	cmd.ExtraFiles = []*os.File{theirs, ns}
	err = cmd.start()
	_ = theirs.Close()
	if err != nil {
		_ = syscall.Close(pair[0])
		return err
	}
	answer, err := call(pair[0], rpc.CriuReqType_RESTORE, &rpc.CriuOpts{
		ImagesDirFd: proto.Int32(int32(dir.Fd())), LogLevel: proto.Int32(4), LogFile: proto.String("restore.log"),
		TcpEstablished: proto.Bool(true), InheritFd: []*rpc.InheritFd{{Key: proto.String(netnsKey), Fd: proto.Int32(4)}},
		NotifyScripts: proto.Bool(false),
	})
	_ = syscall.Close(pair[0])
	_ = cmd.Wait() // the answer says more than its exit code
	if err != nil {
		return withLog(err, filepath.Join(k.images(), "restore.log"))
	}
	k.pid = int(answer.GetRestore().GetPid())
	return nil
}

// nsCRIU restores as CRIU's script criu-ns does: CRIU is process 1 of a new pid
// namespace, where every pid is free, and stays as long as the tasks run.
type nsCRIU struct{ plainCRIU }

func (nsCRIU) String() string { return "criu-ns" }

func (e nsCRIU) restore(k *task, _ ...string) error {
	ns, err := os.Open(netnsPath(k.host.netns))
	if err != nil {
		return err
	}
	defer ns.Close()
	cmd := newCommand(context.Background(), "", "unshare", "--mount", "--pid", "--fork", "--mount-proc", "setsid",
		"criu", "restore", "-D", k.images(), "-o", "restore.log", "-v4", "--tcp-established", "--inherit-fd", "fd[3]:"+netnsKey)
	cmd.ExtraFiles = []*os.File{ns}
	if err := cmd.start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(patience)
	for {
		if log, _ := os.ReadFile(filepath.Join(k.images(), "restore.log")); restored(log) {
			break
		}
		select {
		case err := <-ended:
			return withLog(fmt.Errorf("CRIU has ended: %w", err), filepath.Join(k.images(), "restore.log"))
		case <-deadline:
			return withLog(fmt.Errorf("CRIU is not done"), filepath.Join(k.images(), "restore.log"))
		case <-time.After(5 * time.Millisecond):
		}
	}
	k.pid, err = taskIn(cmd.Process.Pid)
	return err
}

// restored reports whether CRIU's log of a restore says that the tasks run.
func restored(log []byte) bool { return bytes.Contains(log, []byte("Restore finished successfully")) }

// taskIn returns the pid, in the lab's pid namespace, of the task that CRIU has restored
// below a process.
func taskIn(above int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", above))
	if err != nil {
		return 0, err
	}
	for child := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe == trafficProgram {
			return pid, nil
		}
		if pid, err := taskIn(pid); err == nil {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("there is no task below process %d", above)
}

// TestSwrk dumps by go-criu and restores by the same protocol.
func TestSwrk(t *testing.T) {
	withNetfreeze(t, settings{policy: "hold"}, plainCRIU{})
	p := newPair(t, swrkCRIU{}, true, mixed)
	p.holdAndThaw()
	p.holdAndKill()
	p.restore()
}

// TestCriuNS restores in a pid namespace of its own.
func TestCriuNS(t *testing.T) {
	withNetfreeze(t, settings{policy: "kill"}, plainCRIU{})
	p := newPair(t, nsCRIU{}, true, mixed)
	p.moveAway()
}
